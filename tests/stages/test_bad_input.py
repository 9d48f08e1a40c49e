"""Bad input of every kind ends in one clear sentence that says what, where and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from spoiled import SURVIVAL, Bad, copied, survival
from studies import run_stage

from wsi_mil.errors import WsiMilError
from wsi_mil.stages import Work


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study that runs; copied, never changed."""
    work = bag_study(tmp_path_factory.mktemp("clean"), "train.epochs=1", slides=16)
    through(work, "split", "train")
    return work


FOLDS: dict[str, tuple[Bad, tuple[str, ...], str]] = {
    "a fold without events": (
        survival(["1", *["0"] * 15]),
        (*SURVIVAL, "split.folds=2"),
        "has no event of 'event' in the role",
    ),
}


@pytest.mark.parametrize("name", list(FOLDS))
def test_folds_that_cannot_be_dealt_are_refused(clean: Work, tmp_path: Path, name: str) -> None:
    bad, settings, words = FOLDS[name]
    work = copied(clean, tmp_path)
    shutil.rmtree(work.root / "split")
    shutil.rmtree(work.root / "train")
    frame = pd.read_csv(work.root.parent / "cohort.csv", dtype=str, keep_default_na=False)
    bad(frame).to_csv(work.root.parent / "cohort.csv", index=False)
    ended = run_stage(with_settings(work, *settings), "split")[0]
    assert ended.kind == "failed"
    assert words in ended.why


def _patient_on_two_sides(work: Work) -> str:
    path = work.root / "split" / "folds.csv"
    frame = pd.read_csv(path, dtype=str)
    one = frame[(frame["fold"] == "0") & (frame["role"] == "test")].iloc[0]
    other = frame.index[(frame["fold"] == "0") & (frame["role"] == "fit")][0]
    table = pd.read_csv(work.root / "cohort.csv", dtype=str, keep_default_na=False)
    table.loc[table["slide"] == frame.loc[other, "slide"], "patient"] = one["patient"]
    table.to_csv(work.root / "cohort.csv", index=False)
    shutil.rmtree(work.root / "train")
    return "train"


def _same_content_under_two_names(work: Work) -> str:
    frame = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    here = frame[frame["fold"] == "0"]
    tested, learnt = (here["slide"][here["role"] == role].iloc[0] for role in ("test", "fit"))
    folder = work.root / "extract" / "phikon"
    with h5py.File(folder / f"{tested}.h5") as source, h5py.File(folder / f"{learnt}.h5") as target:
        assert source["features"].shape[1] == target["features"].shape[1]
    shutil.copy(folder / f"{tested}.h5", folder / f"{learnt}.h5")
    shutil.rmtree(work.root / "train")
    return "train"


def _nan_features(role: str) -> Callable[[Work], str]:
    """In the second slide of a role of fold 0."""

    def bad(work: Work) -> str:
        folds = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
        slide = folds["slide"][(folds["fold"] == "0") & (folds["role"] == role)].iloc[1]
        path = work.root / "extract" / "phikon" / f"{slide}.h5"
        path = path.rename(path.with_name("ODD.h5"))
        with h5py.File(path, "r+") as file:
            values = file["features"][:]
            values[3, 1] = np.nan
            file["features"][:] = values
            file.attrs["slide_id"] = "ODD"
            if "numbers" in file.attrs:
                del file.attrs["numbers"]
        for table in (work.root / "cohort.csv", work.root / "split" / "folds.csv"):
            table.write_text(table.read_text().replace(f"{slide},", "ODD,"))
        shutil.rmtree(work.root / "train")
        return "train"

    return bad


def _edited_checkpoint(change: Callable[[dict], None]) -> Callable[[Work], str]:  # type: ignore[type-arg]
    def bad(work: Work) -> str:
        path = work.root / "train" / "abmil" / "seed-0" / "fold-0" / "model.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        change(record)
        path.write_text(json.dumps(record), encoding="utf-8")
        return "predict"

    return bad


LATER: dict[str, tuple[Callable[[Work], str], str]] = {
    "a patient on two sides": (_patient_on_two_sides, "leakage, "),
    "one file under two names": (_same_content_under_two_names, "are the same file, one to learn from and one to be"),
    "features that are not finite": (
        _nan_features("fit"),
        "slide 'ODD': feature 1 of tile 3 is nan; extract the slide again",
    ),
    "a loss that is not finite": (_nan_features("select"), "the loss is nan at slide 'ODD': look for features"),
    "a checkpoint of another encoder": (
        _edited_checkpoint(lambda told: told["encoder"].update(name="uni")),
        "its features are not what the model was trained on (name:",
    ),
    "a checkpoint of another version": (
        _edited_checkpoint(lambda told: told.update(format=7)),
        "has format 7 and wsi_mil",
    ),
    "a checkpoint of another task": (
        _edited_checkpoint(lambda told: told["task"].update(classes=["a", "b"])),
        "seed-0/fold-0 is classification of a, b, and seed-0/fold-1 is classification of normal, tumour",
    ),
}


@pytest.mark.parametrize("name", list(LATER))
def test_what_is_found_later_is_said_in_one_sentence(clean: Work, tmp_path: Path, name: str) -> None:
    bad, words = LATER[name]
    work = copied(clean, tmp_path)
    stage = bad(work)
    try:
        ended = run_stage(Work(work.root, work.study), stage)[0]
        kind, why = ended.kind, ended.why
        if kind == "made" and (work.root / "predict").exists():
            table = pd.read_csv(work.root / "predict" / "abmil" / "slides.csv", dtype=str, keep_default_na=False)
            kind, why = "failed", " ".join(table["note"])
    except WsiMilError as error:
        kind, why = "failed", str(error)
    assert kind == "failed"
    assert words in why
