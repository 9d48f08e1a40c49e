"""Bags of several scales and of several encoders go the whole way, or are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from studies import open_work, run_stage

from wsi_mil.bags import bag_to_hdf5, read_bag
from wsi_mil.errors import BagError, ConfigError
from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.models import MODELS, build_model
from wsi_mil.stages import Work
from wsi_mil.stages.features import read_whole, usable
from wsi_mil.tasks import Classification
from wsi_mil.training import Bags, FitSettings, fit, infer, load_checkpoint

LCA_DB = "model={name: lca_db, options: {hidden: 16, attention: 8}}"


def test_two_scales_go_the_whole_way(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "split").root
    work = open_work(cohort, root, "tile.mpp=[1.0, 4.0]", LCA_DB, "train.epochs=1")
    for stage in ("tile", "extract", "train", "predict", "heatmap"):
        outcomes = run_stage(work, stage)
        assert {one.kind for one in outcomes} == {"made"}, [one.why for one in outcomes]
    bag = read_bag(root / "extract" / "offline" / "S02.h5")
    assert bag.grid.mpp == 1.0
    assert [scale.grid.mpp for scale in bag.scales] == [4.0]
    assert len(bag.scales[0].features) < len(bag) / 4
    checkpoint = load_checkpoint(root / "train" / "lca_db" / "seed-0" / "fold-0")
    assert checkpoint.model.spec.dim == 2 * bag.encoder.dim
    assert checkpoint.model.spec.options["region"] == 4
    heatmap = heatmap_from_hdf5((root / "heatmap" / "lca_db" / "S02" / "S02.h5").read_bytes())
    assert np.isfinite(heatmap.scores).all()


def test_a_model_of_two_scales_needs_both(cohort: Path, copy_of: Callable[..., Work]) -> None:
    work = open_work(cohort, copy_of("tissue", "tile", "extract", "split").root, LCA_DB)
    assert "reads tiles at two scales, and there are 1" in run_stage(work, "train")[0].why


def test_a_model_of_one_scale_is_needed_for_a_bag_of_one(cohort: Path, copy_of: Callable[..., Work]) -> None:
    work = open_work(cohort, copy_of("tissue", "tile", "extract", "split").root, "tile.mpp=[1.0, 4.0]")
    with pytest.raises(Exception, match=r"tile.coarser|another configuration"):
        run_stage(work, "train")


@pytest.mark.parametrize("settings", [["tile.mpp=[1.0, 2.5]"], ["tile.mpp=[1.0, 2.0]", "tile.overlap_px=8"]])
def test_scales_that_do_not_fit_are_refused(cohort: Path, tmp_path: Path, settings: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"must be 2, 3, 4|without overlap"):
        open_work(cohort, tmp_path, *settings)


def _second_encoder(root: Path, *, moved: bool = False) -> None:
    """Bags of another encoder: the same features, half as large."""
    (root / "extract" / "other").mkdir()
    for path in sorted((root / "extract" / "offline").glob("*.h5")):
        bag = read_bag(path)
        grid = replace(bag.grid, coords_l0=bag.grid.coords_l0 + 1) if moved else bag.grid
        encoder = replace(bag.encoder, name="other")
        half = (bag.features / 2).astype(np.float16)
        scales = tuple(replace(one, features=(one.features / 2).astype(np.float16)) for one in bag.scales)
        other = replace(bag, features=half, grid=grid, encoder=encoder, scales=scales)
        (root / "extract" / "other" / path.name).write_bytes(bag_to_hdf5(other))


def test_two_encoders_stand_side_by_side(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract", "split").root
    _second_encoder(root)
    for name in ("abmil", "stats"):
        work = open_work(cohort, root, f"model={{name: {name}, beside: [other]}}", "train.epochs=1")
        for stage in ("train", "predict", "heatmap"):
            outcomes = run_stage(work, stage)
            assert {one.kind for one in outcomes} == {"made"}, [one.why for one in outcomes]
        checkpoint = load_checkpoint(root / "train" / name / "seed-0" / "fold-0")
        own = read_bag(root / "extract" / "offline" / "S02.h5").encoder
        assert checkpoint.contract.name == "offline + other"
        assert checkpoint.model.spec.dim == 2 * own.dim
        scale = checkpoint.model.feature_scale.numpy()
        np.testing.assert_allclose(scale[own.dim :] * 2, scale[: own.dim], rtol=0.01)


def test_every_aggregator_reads_both_encoders(cohort: Path, copy_of: Callable[..., Work]) -> None:
    """One step of training on bags of two encoders; then noise in the features of either one changes the answer."""
    root = copy_of("tissue", "tile", "extract").root
    _second_encoder(root)
    paths = sorted((root / "extract" / "offline").glob("S*.h5"))[:4]
    own = read_bag(paths[0]).encoder.dim
    read = [usable(read_whole(path, ["other"])) for path in paths]
    task = Classification(classes=("0", "1")).fit({"a": {"label": "0"}, "b": {"label": "1"}})
    source, settings = Bags(read), FitSettings(epochs=1, patience=0, batch_bags=4)
    random = np.random.default_rng(0)
    for name in sorted(set(MODELS) - {"lca_db"}):  # which reads two scales, not two encoders
        known = inspect.signature(MODELS[name]).parameters
        options = {key: value for key, value in {"hidden": 16, "attention": 8, "heads": 2}.items() if key in known}
        if name == "abmil":
            options.pop("heads")
        model = build_model(name, dim=2 * own, n_out=2, seed=0, **options)
        targets = torch.tensor([0, 1, 0, 1])
        fit(model, source, fit_index=range(4), select_index=[], targets=targets, task=task, settings=settings, seed=0)
        features, cells = read[0]
        said = infer(model, features, cells)
        assert said.logits.shape == (2,)
        assert len(said.scores) == len(features)
        for columns in (slice(own), slice(own, None)):
            other = features.copy()
            other[:, columns] += random.normal(0, features.std(), other[:, columns].shape).astype(np.float32)
            assert not np.allclose(infer(model, other, cells).logits, said.logits, atol=1e-7), (name, columns)


def test_two_encoders_at_two_scales(cohort: Path, copy_of: Callable[..., Work]) -> None:
    """Of LCA-DB, which halves the columns: both encoders' finer tiles first, then both encoders' coarser ones."""
    root = copy_of("tissue", "split").root
    work = open_work(cohort, root, "tile.mpp=[1.0, 4.0]", LCA_DB, "model.beside=[other]", "train.epochs=1")
    for stage in ("tile", "extract"):
        assert {one.kind for one in run_stage(work, stage)} == {"made"}
    _second_encoder(root)
    for stage in ("train", "predict", "heatmap"):
        outcomes = run_stage(work, stage)
        assert {one.kind for one in outcomes} == {"made"}, [one.why for one in outcomes]
    path = root / "extract" / "offline" / "S02.h5"
    own = read_bag(path).encoder.dim
    assert load_checkpoint(root / "train" / "lca_db" / "seed-0" / "fold-0").model.spec.dim == 4 * own
    alone, both = usable(read_whole(path, []))[0], usable(read_whole(path, ["other"]))[0]
    np.testing.assert_array_equal(both[:, :own], alone[:, :own])
    np.testing.assert_array_equal(both[:, 2 * own : 3 * own], alone[:, own:])
    np.testing.assert_allclose(both[:, 3 * own :] * 2, alone[:, own:], atol=1e-3)
    (root / "extract" / "other" / "S02.h5").write_bytes(
        bag_to_hdf5(replace(read_bag(root / "extract" / "other" / "S02.h5"), scales=()))
    )
    with pytest.raises(BagError, match=r"offline has tiles at 2 scale\(s\) and other at 1"):
        read_whole(path, ["other"])


def test_two_encoders_are_not_two_scales(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract", "split").root
    _second_encoder(root)
    work = open_work(cohort, root, "model={name: lca_db, beside: [other]}")
    assert "reads tiles at two scales, and there are 1" in run_stage(work, "train")[0].why


def test_encoders_that_saw_other_tiles_are_refused(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract", "split").root
    work = open_work(cohort, root, "model.beside=[other]", "train.epochs=1")
    outcome = run_stage(work, "train")[0]
    assert "is not there: run `wsi-mil extract STUDY.yaml extract.encoder=other` as well" in outcome.why
    _second_encoder(root, moved=True)
    outcome = run_stage(work, "train")[0]
    assert "did not see the same tiles" in outcome.why
