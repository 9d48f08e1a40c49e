"""kill -9 in the middle of extract and of train: what is whole stays, and the next run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bagged import bag_study, through, with_settings
from studies import open_work, run_stage

from wsi_mil.bags import verify_bag
from wsi_mil.stages import Work, load_study


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


def test_training_that_is_killed_ends_with_the_very_same_checkpoint(tmp_path: Path) -> None:
    told = ("split.folds=1", "train.epochs=60", "train.patience=0", "train.tiles_per_bag=15", "train.batch_bags=8")
    work = bag_study(tmp_path, *told, "runtime.snapshot_s=0.01")
    through(work, "split")
    other = tmp_path / "other"
    shutil.copytree(work.root, other / "work")
    for name in ("study.yaml", "cohort.csv"):
        shutil.copy(tmp_path / name, other)

    folder = work.root / "train" / "abmil"
    command = [sys.executable, "-m", "wsi_mil", "train", str(tmp_path / "study.yaml"), "--work", str(work.root)]
    child = subprocess.Popen(
        [*command, *told, "runtime.snapshot_s=0.01"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(".resume/*.safetensors")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "training was over before it could be killed"
    assert list(folder.glob(".resume/*.safetensors"))
    assert not list(folder.glob("seed-0/fold-0/*"))

    log = folder / "log" / "seed-0-fold-0.jsonl"
    before = len(log.read_text().splitlines())
    through(with_settings(work, *told), "train")
    went_on = json.loads(log.read_text().splitlines()[before])
    assert 1 < went_on["epoch"] < 60, "it went on where the snapshot was, and did not begin anew"
    assert not list(folder.glob(".resume/*.safetensors"))

    whole = Work(other / "work", load_study(other / "study.yaml", list(told)))
    through(whole, "train")
    for name in ("model.safetensors", "model.json", "history.csv"):
        ours, theirs = (one / "train/abmil/seed-0/fold-0" / name for one in (work.root, whole.root))
        assert ours.read_bytes() == theirs.read_bytes(), name
