"""kill -9 in the middle of extract: whole bags stay, no broken one appears, the next run makes the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies import open_work, run_stage

from wsi_mil.bags import verify_bag
from wsi_mil.stages import Work


@pytest.mark.slow
def test_killed_and_resumed(cohort: Path, finished: Work, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path)
    for name in ("tissue", "tile"):
        run_stage(work, name)
    folder = work.stage("extract").folder(work)
    command = [sys.executable, "-m", "wsi_mil", "extract", str(cohort / "study.yaml"), "--work", str(tmp_path)]
    kills = 0
    for wanted in (1, 5):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(folder.glob("*.h5"))) < wanted and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.wait()
        for path in folder.glob("*.h5"):
            verify_bag(path)
    assert kills
    whole = {path.name for path in folder.glob("*.h5")}
    assert len(whole) < 12
    outcomes = run_stage(work, "extract")
    assert {one.kind for one in outcomes} <= {"made", "found"}
    assert {f"{one.item}.h5" for one in outcomes if one.kind == "found"} <= whole
    for path in sorted((finished.root / "extract" / "offline").glob("*.h5")):
        assert (folder / path.name).read_bytes() == path.read_bytes()
