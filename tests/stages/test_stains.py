"""Stain normalisation and jitter through the extract stage: said in the contract, the same each time, off at first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studies import open_work, run_stage

from wsi_mil.bags import Bag, read_bag
from wsi_mil.errors import EncoderError
from wsi_mil.grid import TileGrid
from wsi_mil.slides import open_slide
from wsi_mil.stages import Work
from wsi_mil.stages.stains import stain_map


def bag(cohort: Path, root: Path, *settings: str) -> Bag:
    """The bag of S02, extracted with some settings."""
    work = open_work(cohort, root, *settings)
    for name in ("tissue", "tile", "extract"):
        outcomes = run_stage(work, name, shard=(1, 12))
        assert [one.kind for one in outcomes] == ["made"], outcomes
    return read_bag(root / "extract" / "offline" / "S02.h5")


def test_a_normalised_bag_says_so_and_does_not_mix(cohort: Path, finished: Work, tmp_path: Path) -> None:
    plain = read_bag(finished.root / "extract" / "offline" / "S02.h5")
    made = bag(cohort, tmp_path / "work", "extract.stain=macenko")
    assert (plain.encoder.stain, made.encoder.stain) == ("none", "macenko")
    assert made.encoder.difference(plain.encoder) == ["stain: 'macenko' -> 'none'"]
    assert np.abs(made.features - plain.features).max() > 0.1
    for name, values in plain.quality.items():
        np.testing.assert_array_equal(
            values, made.quality[name], err_msg="measures are those of the slide's own pixels"
        )


def test_jitter_is_drawn_anew_for_each_slide_and_seed_and_stays_for_both(
    cohort: Path, finished: Work, tmp_path: Path
) -> None:
    plain = read_bag(finished.root / "extract" / "offline" / "S02.h5")
    made = [
        bag(cohort, tmp_path / str(number), "extract.stain_jitter=0.1", f"extract.stain_seed={seed}")
        for number, seed in enumerate((0, 0, 1))
    ]
    np.testing.assert_array_equal(made[0].features, made[1].features)
    assert np.abs(made[0].features - made[2].features).max() > 0.05
    assert np.abs(made[0].features - plain.features).max() > 0.05
    assert not made[0].encoder.difference(plain.encoder), "jittered bags lie beside the others"


def test_maps_of_two_slides_differ_and_none_is_none(cohort: Path, finished: Work) -> None:
    def found(slide: str, **options: float) -> np.ndarray | None:
        grid = read_bag(finished.root / "extract" / "offline" / f"{slide}.h5").grid
        with open_slide(cohort / "cohort" / "slides" / f"{slide}.tiff", id=slide) as opened:
            made = stain_map(opened, grid, **{"stain": "none", "jitter": 0.0, "seed": 0, **options})  # type: ignore[arg-type]
        return None if made is None else made.matrix

    assert found("S02") is None
    one, other = found("S02", jitter=0.1), found("S04", jitter=0.1)
    assert one is not None
    assert other is not None
    assert np.abs(one - other).max() > 0.01
    both = found("S02", jitter=0.1, stain="macenko")  # type: ignore[arg-type]
    assert both is not None
    assert np.abs(both - one).max() > 0.01


def test_a_slide_of_glass_has_no_stains(cohort: Path, finished: Work) -> None:
    grid = read_bag(finished.root / "extract" / "offline" / "S02.h5").grid
    corner = TileGrid(
        grid.slide, np.zeros((1, 2), np.int64), np.ones(1, np.float32), 64, 1.0, grid.extent_l0, grid.step_l0
    )
    path = cohort / "cohort" / "slides" / "S02.tiff"
    with (
        open_slide(path, id="S02") as slide,
        pytest.raises(EncoderError, match=r"slide 'S02': only \d+ stained pixels"),
    ):
        stain_map(slide, corner, stain="macenko", jitter=0.0, seed=0)
