"""Studies side by side: the same cases, paired tests, and refusals where they cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.layout import record
from wsi_mil.stages import Work, compare_studies


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Path]:
    """A study on two folds and three repeats, and a copy whose predictions are mostly noise."""
    folder = tmp_path_factory.mktemp("compare")
    work = bag_study(folder, "split.repeats=2", slides=40, signal=4)
    through(work, "split", "train", "predict")
    noisy = folder / "noisy"
    shutil.copytree(work.root, noisy)
    random = np.random.default_rng(0)
    for name in ("slides", "models"):
        path = noisy / "predict" / "abmil" / f"{name}.csv"
        table = pd.read_csv(path, dtype={"slide": str}, keep_default_na=False)
        table["p_tumour"] = random.uniform(size=len(table))
        table["p_normal"] = 1 - table["p_tumour"]
        table.to_csv(path, index=False)
    return work, noisy


def test_the_better_study_is_told_from_the_worse(works: tuple[Work, Path]) -> None:
    work, noisy = works
    told = compare_studies([noisy, work.root, work.root.parent / "noisy"][:2], draws=200)
    assert (told.level, told.cases, told.patients) == ("slide", 40, 40)
    first, second = told.studies
    assert (first.name, second.name) == ("noisy", "work")
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.value == pytest.approx(second.metrics["auroc"].value - first.metrics["auroc"].value)
    assert second.difference.low > 0
    assert second.p is not None
    assert second.p < 0.05
    assert second.by_delong is None  # cross-validation: several models
    assert second.by_folds is not None
    assert second.by_folds.draws == 4
    assert told.notes == []


def test_the_gap_to_folds_that_keep_sites_whole_is_one_number(works: tuple[Work, Path], tmp_path: Path) -> None:
    work, noisy = works
    shutil.copytree(noisy, tmp_path / "whole")
    path = tmp_path / "whole" / "split" / "stage.json"
    told = files.read_json(path)
    told["configuration"]["split"]["by"] = "sites"
    files.write_json(path, told)
    one, other = (compare_studies(both, draws=200) for both in _both_ways(work.root, tmp_path / "whole"))
    gap = one.studies[1].difference
    assert gap is not None
    assert f"auroc {-gap.value:+.3f} ({-gap.high:+.3f} to {-gap.low:+.3f})" in one.notes[-1]
    assert -gap.value > 0
    assert f"auroc {-gap.value:+.3f}" in other.notes[-1]


def _both_ways(one: Path, other: Path) -> list[list[Path]]:
    return [[one, other], [other, one]]


def test_delong_of_one_untouched_test_set(tmp_path: Path) -> None:
    works = []
    for number, signal in enumerate((3.0, 0.0)):
        work = bag_study(
            tmp_path / str(number), "split.folds=1", "split.test=0.4", "train.epochs=2", slides=30, signal=signal
        )
        through(work, "split", "train", "predict")
        works.append(work.root)
    told = compare_studies(works, draws=100)
    assert told.studies[1].by_delong is not None
    assert told.studies[1].by_delong.value == pytest.approx(told.studies[1].difference.value)  # type: ignore[union-attr]
    assert told.studies[1].by_folds is None


def test_predictions_of_a_run_that_failed_since_are_not_compared(works: tuple[Work, Path], tmp_path: Path) -> None:
    work, noisy = works
    shutil.copytree(noisy, tmp_path / "other")
    path = record(tmp_path / "other" / "predict" / "abmil", "slides")
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "outcome": "failed", "why": "leakage"}))
    with pytest.raises(StageError, match="the last one failed: leakage"):
        compare_studies([work.root, tmp_path / "other"])


def test_what_cannot_be_compared_is_refused(works: tuple[Work, Path], tmp_path: Path) -> None:
    work, noisy = works
    with pytest.raises(StageError, match="one study only"):
        compare_studies([work.root])
    with pytest.raises(StageError, match="has no predictions"):
        compare_studies([work.root, tmp_path])
    shutil.copytree(noisy, tmp_path / "other")
    path = tmp_path / "other" / "predict" / "abmil" / "slides.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[3, "label"] = "normal" if table.loc[3, "label"] == "tumour" else "tumour"
    table.to_csv(path, index=False)
    with pytest.raises(StageError, match=r"1 slide\(s\) have another label in another study, first 'S003'"):
        compare_studies([work.root, tmp_path / "other"])
    table.drop(index=[3]).to_csv(path, index=False)
    told = compare_studies([work.root, tmp_path / "other"], draws=100)
    assert told.cases == 39
    assert "work has predicted 40 slides" in told.notes[0]
    table.rename(columns={"p_normal": "p_benign"}).replace("normal", "benign").to_csv(path, index=False)
    with pytest.raises(StageError, match="has the classes benign, tumour and work normal, tumour"):
        compare_studies([work.root, tmp_path / "other"])
