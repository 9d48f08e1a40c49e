"""Every pipeline runs; here on a few real slides, with few epochs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.mark.slow
def test_idc(test_data: Path, tmp_path: Path) -> None:
    kept = [line.split(",")[0] for line in (test_data / "idc" / "cohort.csv").read_text().splitlines()[1:]]
    lines = (test_data / "idc" / "cohort.csv").read_text().splitlines()
    patients = list(dict.fromkeys(line.split(",")[1] for line in lines[1:] if line.endswith("part")))[:12]
    table = [lines[0], *(line for line in lines[1:] if line.split(",")[1] in patients)]
    (tmp_path / "cohort.csv").write_text("\n".join(table))
    assert len(kept) > len(table)
    settings = [f"cohort.table={tmp_path / 'cohort.csv'}", "split.folds=2", "train.epochs=2", "report.draws=100"]
    command = [sys.executable, str(PIPELINES / "idc.py"), "--work", str(tmp_path), *settings]
    environment = {**os.environ, "WSI_MIL_TEST_DATA": str(test_data)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| gated attention MIL |" in ended.stdout
    assert "| layout of the tiles |" in ended.stdout
