"""What every stage promises: whole outputs, only what is missing, a refused change, one bad slide alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from studies import open_work, run_stage

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.stages import Work, plan, tissue
from wsi_mil.stages.ledger import require
from wsi_mil.stages.stage import Item
from wsi_mil.synthetic import draw_cohort


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def test_a_second_run_finds_everything(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile")
    before = {path: path.stat().st_mtime_ns for path in (work.root / "tile").glob("*.h5")}
    outcomes = run_stage(work, "tile")
    assert {one.kind for one in outcomes} == {"found"}
    assert before == {path: path.stat().st_mtime_ns for path in (work.root / "tile").glob("*.h5")}


def test_only_what_is_missing_is_made(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile")
    (work.root / "tile" / "S03.h5").unlink()
    assert [one.item for one in run_stage(work, "tile") if one.kind == "made"] == ["S03"]


def test_a_changed_configuration_is_refused_with_the_difference(cohort: Path, copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract")
    other = open_work(cohort, work.root, "tile.mpp=2.0")
    with pytest.raises(StageError, match=r"tile/ was made with another configuration \(tile.mpp: 1.0 -> 2.0\).*--redo"):
        run_stage(other, "tile")
    with pytest.raises(StageError, match="tile.mpp: 1.0 -> 2.0"):
        run_stage(other, "extract")
    assert {one.kind for one in run_stage(other, "tile", redo=True)} == {"made"}
    with pytest.raises(StageError, match="extract/offline/ was made with another configuration"):
        run_stage(other, "extract")


def test_how_fast_is_not_what(cohort: Path, copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract")
    other = open_work(cohort, work.root, "runtime.batch_tiles=7")
    assert {one.kind for one in run_stage(other, "extract")} == {"found"}


def test_an_outline_edited_by_hand_is_kept_and_makes_what_follows_stale(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile")
    path = work.root / "tissue" / "S02.geojson"
    square = {"type": "Polygon", "coordinates": [[[0, 0], [600, 0], [600, 600], [0, 600], [0, 0]]]}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": square}]}))
    outcome = run_stage(work, "tissue")[1]
    assert (outcome.kind, "edited by hand" in outcome.why) == ("found", True)
    assert {one.item: one.state for one in plan(work.stage("tile"), work)}["S02"] == "stale"
    made = [one for one in run_stage(work, "tile") if one.kind == "made"]
    assert [one.item for one in made] == ["S02"]
    with h5py.File(work.root / "tile" / "S02.h5") as file:
        assert file["coords"][:].max() < 600
    assert run_stage(work, "tissue", redo=True)[1].kind == "found"  # a person's work is not overwritten
    assert "600" in path.read_text()


def test_what_a_failed_run_left_is_not_taken_unless_a_person_mends_it(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile")
    for stage, name in (("tissue", "S02.geojson"), ("tile", "S02.h5")):
        path = work.root / stage / ".made" / "S02.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "outcome": "failed", "why": "the disk broke"}))
        with pytest.raises(StageError, match=f"{stage}: the disk broke"):
            require(stage, "S02", work)
        assert (work.root / stage / name).exists()
    assert {one.item: one.state for one in plan(work.stage("tissue"), work)}["S02"] == "stale"
    path = work.root / "tissue" / "S02.geojson"
    path.write_text(path.read_text() + " ")
    assert require("tissue", "S02", work) == path
    assert {one.kind for one in run_stage(work, "tile")} == {"made", "found"}
    assert require("tile", "S02", work) == work.root / "tile" / "S02.h5"


def test_a_slide_whose_outline_was_emptied_ends_as_empty_and_takes_its_grid_along(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile")
    far = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    path = work.root / "tissue" / "S02.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": far}]}))
    outcome = run_stage(work, "tile")[1]
    assert (outcome.kind, outcome.why.startswith("no tile")) == ("empty", True)
    assert not (work.root / "tile" / "S02.h5").exists()
    assert run_stage(work, "tile")[1].kind == "empty"
    outcome = run_stage(work, "extract")[1]
    assert (outcome.kind, outcome.why.startswith("no tile")) == ("empty", True)


def test_one_bad_slide_never_stops_the_others(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("S01", "S02"):
        (folder / f"{name}.tiff").symlink_to(cohort / "cohort" / "slides" / f"{name}.tiff")
    (folder / "text.svs").write_text("this is no slide")
    (folder / "zero.svs").write_text("")
    whole = (cohort / "cohort" / "slides" / "S03.tiff").read_bytes()
    (folder / "cut.tiff").write_bytes(whole[: len(whole) // 3])
    work = open_work(cohort, tmp_path / "work", "cohort.table=null", f"cohort.slides={folder}", "task.label=''")
    outcomes = {one.item: one for one in run_stage(work, "tissue")}
    assert {name: one.kind for name, one in outcomes.items()} == {
        "S01": "made", "S02": "made", "text": "failed", "zero": "failed", "cut": "failed"
    }  # fmt: skip
    assert "empty" in outcomes["zero"].why
    outcomes = {one.item: one for one in run_stage(work, "tile")}
    assert outcomes["zero"].kind == "failed"
    assert outcomes["zero"].why.startswith("tissue: ")
    assert outcomes["S01"].kind == "made"


def test_a_stage_whose_input_was_never_made_says_which_to_run(cohort: Path, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path)
    outcome = run_stage(work, "tile")[0]
    assert outcome.kind == "failed"
    assert "run `wsi-mil tissue` first" in outcome.why


def test_shards_share_a_cohort(cohort: Path, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path)
    first, second = (run_stage(work, "tissue", shard=(number, 2)) for number in (0, 1))
    assert len(first) == len(second) == 6
    assert not {one.item for one in first} & {one.item for one in second}
    assert {one.kind for one in run_stage(work, "tissue")} == {"found"}
    with pytest.raises(StageError, match="no shard 2/2"):
        run_stage(work, "tissue", shard=(2, 2))


@pytest.mark.slow
def test_the_same_files_wherever_it_runs(cohort: Path, finished: Work, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path)
    for name in ("tissue", "tile", "extract", "split", "train", "predict"):
        assert {one.kind for one in run_stage(work, name, on="processes:2")} == {"made"}
        folder = finished.stage(name).folder(finished)
        timed = (".made", "log/")  # records and logs hold times
        skip = lambda made, timed=timed: {k: v for k, v in made.items() if not k.startswith(timed)}  # noqa: E731
        assert skip(_bytes(work.stage(name).folder(work))) == skip(_bytes(folder)), name


@pytest.mark.slow
def test_the_same_files_on_dask(cohort: Path, finished: Work, tmp_path: Path) -> None:
    from distributed import LocalCluster

    work = open_work(cohort, tmp_path)
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        for name in ("tissue", "tile"):
            outcomes = run_stage(work, name, on=f"dask:{cluster.scheduler_address}")
            assert {one.kind for one in outcomes} == {"made"}, outcomes
    for path in (finished.root / "tile").glob("*.h5"):
        assert path.read_bytes() == (work.root / "tile" / path.name).read_bytes()


def test_a_full_disk_is_told_in_words(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = open_work(cohort, tmp_path)

    def full(*arguments: object, **more: object) -> str:
        raise OSError(28, "No space left on device", "draft")

    monkeypatch.setattr(tissue, "outline_to_geojson", full)
    outcome = run_stage(work, "tissue")[0]
    assert outcome.kind == "failed"
    assert "the disk is full" in outcome.why
    assert not list((work.root / "tissue").glob("*.geojson"))


def test_the_same_slide_on_both_sides_of_a_fold_is_a_fault(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twins"
    draw_cohort(folder / "cohort", slides=12, seed=1, side_px=(1024, 1300))
    (folder / "study.yaml").write_text((cohort / "study.yaml").read_text())
    table = (folder / "cohort" / "cohort.csv").read_text()
    twin = next(line for line in table.splitlines() if line.startswith("S05"))
    (folder / "cohort" / "cohort.csv").write_text(table + twin.replace("S05", "S99").replace(",P", ",PX") + "\n")
    # A byte more: no longer the same file, which the table's check would find, but the same features.
    twin_bytes = (folder / "cohort" / "slides" / "S05.tiff").read_bytes() + b"\0"
    (folder / "cohort" / "slides" / "S99.tiff").write_bytes(twin_bytes)
    work = open_work(folder, tmp_path / "work")
    for name in ("tissue", "tile", "extract", "split"):
        run_stage(work, name)
    path = work.root / "split" / "folds.csv"
    lines = [line.rpartition(",") for line in path.read_text().splitlines()]
    roles = {"S05": "test", "S99": "fit"}
    path.write_text("\n".join(f"{line},{roles.get(line.split(',')[2], role)}" for line, _, role in lines))
    outcomes = run_stage(work, "train")
    told = [one for one in outcomes if "are the same file" in one.why]
    assert told, outcomes
    assert all(one.kind == "failed" for one in told)


def test_records_tell_what_was_made(finished: Work) -> None:
    record = files.read_json(finished.root / "extract" / "offline" / ".made" / "S01.json")
    assert record["outcome"] == "made"
    assert record["facts"]["tiles"] > 0
    stage = files.read_json(finished.root / "extract" / "offline" / "stage.json")
    assert set(stage["configuration"]) == {"tissue", "tile", "extract"}
    assert finished.stage("extract").output(Item("S01"), finished).exists()
