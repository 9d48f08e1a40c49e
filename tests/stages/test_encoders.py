"""Encoders through the stages: tokens, scales, contracts that do not mix, vectors that are no numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from studies import open_work, run_stage

from wsi_mil.bags import cells, read_bag, read_grid

pytest.importorskip("timm", reason="timm is not installed: pip install 'wsi_mil[timm]'", exc_type=ImportError)

VIT = ("extract.encoder=timm:test_vit", "extract.weights=random")


def _with_encoder(copy_of, *settings: str):  # type: ignore[no-untyped-def]
    """The finished study up to its tiles, with the settings of another encoder."""
    from wsi_mil.stages import Work, load_study

    work = copy_of("tissue", "tile", "split")
    path = Path(work.study.cohort.slides).parent.parent / "study.yaml"
    return Work(work.root, load_study(path, list(settings)))


def test_tokens_are_instances_on_their_own_grid(copy_of) -> None:  # type: ignore[no-untyped-def]
    work = _with_encoder(copy_of, *VIT, "extract.pooling=tokens", "train.epochs=1", "runtime.batch_tiles=3")
    assert {one.kind for one in run_stage(work, "extract")} == {"made"}
    slide = work.cohort.slides[0]
    bag = read_bag(work.root / "extract" / "timm-test_vit-tokens" / f"{slide}.h5")
    grid = read_grid(work.root / "tile" / f"{slide}.h5")
    assert len(bag) == 100 * len(grid), "160 px in patches of 16"
    assert bag.grid.extent_l0 == pytest.approx(np.array(grid.extent_l0) / 10)
    assert bag.grid.size_px * bag.grid.mpp == pytest.approx(grid.size_px * grid.mpp / 10)
    places = cells(bag.grid)
    assert len(np.unique(places, axis=0)) == len(places), "no two tokens share a cell"
    tile = cells(grid)[1]
    np.testing.assert_array_equal(places[100:110], [(10 * tile[0] + k, 10 * tile[1]) for k in range(10)])
    np.testing.assert_array_equal(places[110], (10 * tile[0], 10 * tile[1] + 1))
    assert bag.quality["red_mean"].shape == (len(bag),)
    outcomes = run_stage(work, "train")
    assert {one.kind for one in outcomes} == {"made"}, outcomes
    assert {one.kind for one in run_stage(work, "predict")} == {"made"}
    assert {one.kind for one in run_stage(work, "heatmap")} == {"made"}
    with h5py.File(work.root / "heatmap" / "abmil" / slide / f"{slide}.h5") as file:
        assert len(file["coords"]) == len(bag), "a map as fine as the tokens"


def test_tokens_of_overlapping_tiles_are_refused(cohort: Path, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path / "work", *VIT, "extract.pooling=tokens", "tile.overlap_px=16")
    for name in ("tissue", "tile"):
        run_stage(work, name)
    outcomes = run_stage(work, "extract")
    assert {one.kind for one in outcomes} == {"failed"}
    assert "tile.overlap_px=0" in outcomes[0].why


def test_tokens_at_several_scales_are_refused(cohort: Path, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path / "work", *VIT, "extract.pooling=tokens", "tile.mpp=[4.0,8.0]")
    for name in ("tissue", "tile"):
        run_stage(work, name)
    outcomes = run_stage(work, "extract")
    assert {one.kind for one in outcomes} == {"failed"}
    assert "set tile.mpp to one scale" in outcomes[0].why


def test_an_encoder_at_the_wrong_scale_says_what_to_run(copy_of) -> None:  # type: ignore[no-untyped-def]
    work = _with_encoder(copy_of, "extract.encoder=uni", "extract.weights=random")
    outcomes = run_stage(work, "extract")
    assert {one.kind for one in outcomes} == {"failed"}
    assert "wsi-mil tile STUDY.yaml tile.size_px=256 tile.mpp=0.5" in outcomes[0].why
    assert "extract.any_scale=true" in outcomes[0].why


def test_nan_fails_the_slide_and_names_the_tile(copy_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from wsi_mil.encoders import NetworkEncoder

    work = _with_encoder(copy_of, *VIT, "runtime.batch_tiles=4")
    real = NetworkEncoder._forward
    calls = []

    def broken(self, tiles):  # type: ignore[no-untyped-def]
        vectors = real(self, tiles).clone()
        calls.append(len(tiles))
        if len(calls) == 2:
            vectors[1, 0] = float("nan")
        return vectors

    monkeypatch.setattr(NetworkEncoder, "_forward", broken)
    outcomes = run_stage(work, "extract")
    assert [one.kind for one in outcomes].count("failed") == 1
    assert "tile 5 at (" in outcomes[0].why
    assert "gave NaN or infinity" in outcomes[0].why
    assert not (work.root / "extract" / "timm-test_vit" / f"{outcomes[0].item}.h5").exists()


def _edit_contract(path: Path, **changes: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["encoder"] = json.dumps({**json.loads(file.attrs["encoder"]), **changes}, sort_keys=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights_digest": "e" * 64}, "weights_digest"),
        ({"pooling": "cls"}, "pooling: .* -> 'cls'"),
        ({"precision": "bf16"}, "precision: 'fp32' -> 'bf16'"),
        ({"tile_mpp": 0.25}, r"tile_mpp: 1.0 -> 0.25"),
        ({"resize": "nearest"}, "resize"),
    ],
)
def test_bags_of_another_contract_do_not_train(copy_of, changes: dict[str, object], words: str) -> None:  # type: ignore[no-untyped-def]
    work = copy_of("tissue", "tile", "extract", "split")
    _edit_contract(work.root / "extract" / "offline" / f"{work.cohort.slides[0]}.h5", **changes)
    failed = [one.why for one in run_stage(work, "train") if one.kind == "failed"]
    assert failed, "every fold that would learn from it"
    assert all(re.search(f"do not go together.*{words}", why) for why in failed)


def test_bags_of_another_contract_are_not_predicted(copy_of) -> None:  # type: ignore[no-untyped-def]
    work = copy_of("tissue", "tile", "extract", "split", "train")
    slide = work.cohort.slides[0]
    _edit_contract(work.root / "extract" / "offline" / f"{slide}.h5", weights_digest="e" * 64)
    run_stage(work, "predict")
    import pandas as pd

    table = pd.read_csv(work.root / "predict" / "abmil" / "slides.csv", keep_default_na=False).set_index("slide")
    assert table.loc[slide, "status"] == "failed"
    assert "weights_digest" in table.loc[slide, "note"]
    assert "extract it with the model's encoder" in table.loc[slide, "note"]
    assert (table["status"] == "failed").sum() == 1


def test_an_encoder_that_cannot_be_loaded_is_tried_once(copy_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from wsi_mil.encoders import build
    from wsi_mil.errors import EncoderError

    tried = []

    def unreachable(wanted, given):  # type: ignore[no-untyped-def]
        tried.append(wanted.name)
        raise EncoderError("the hub could not be reached")

    monkeypatch.setattr(build.source, "find", unreachable)
    monkeypatch.setattr("wsi_mil.stages.extract.RETRY_S", 1e9)
    work = _with_encoder(copy_of, "extract.encoder=dinov2-s14")
    outcomes = run_stage(work, "extract")
    assert {(one.kind, one.why) for one in outcomes} == {("failed", "the hub could not be reached")}
    assert tried == ["dinov2-s14"]
