"""A slide with some damaged tiles goes the whole way: marked, kept out of training, counted where a person looks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from studies import open_work, run_stage

from wsi_mil.bags import read_bag
from wsi_mil.grid import TileStatus
from wsi_mil.stages.features import usable

SLIDE = "S03"


@pytest.fixture
def damaged(cohort: Path, tmp_path: Path) -> Path:
    """The study of small slides with a few stored tiles of one of them overwritten."""
    folder = tmp_path / "study"
    shutil.copytree(cohort, folder)
    path = next(folder.rglob(f"{SLIDE}.tiff"))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        across = -(-page.imagewidth // page.tilewidth)
        middle = len(page.dataoffsets) // 2 + across // 2
        for number in (middle, middle + 1):
            start, count = page.dataoffsets[number], page.databytecounts[number]
            data[start : start + count] = bytes(count)
    path.write_bytes(data)
    return folder


@pytest.mark.slow
def test_damaged_tiles_are_marked_left_out_and_counted(damaged: Path, tmp_path: Path) -> None:
    # Tissue is found on level 1, which is whole; tiles are read from level 0.
    work = open_work(damaged, tmp_path / "work", "train.epochs=1")
    outcomes = {}
    for name in ("tissue", "tile", "extract", "split", "train", "predict", "heatmap", "report"):
        ended = run_stage(work, name)
        assert {one.kind for one in ended} == {"made"}, [one for one in ended if one.kind != "made"]
        outcomes[name] = {one.item: one for one in ended}
    bag = read_bag(work.root / "extract" / "offline" / f"{SLIDE}.h5")
    lost = bag.status == TileStatus.UNREADABLE
    assert 0 < lost.sum() < len(bag)
    assert not bag.features[lost].any(), "what could not be read is zero, never white tissue"
    assert outcomes["extract"][SLIDE].facts["unreadable"] == lost.sum()
    features, _ = usable(bag)
    assert len(features) == (~lost).sum()
    page = (work.root / "report" / "index.html").read_text(encoding="utf-8")
    rows = [part.partition("</tr>")[0] for part in page.split(f">{SLIDE}<")[1:]]
    assert any(f">{int(lost.sum())}<" in row for row in rows)
    record = json.loads((work.root / "extract" / "offline" / ".made" / f"{SLIDE}.json").read_text(encoding="utf-8"))
    assert record["facts"]["unreadable"] == lost.sum()
    others = [one.facts["unreadable"] for name, one in outcomes["extract"].items() if name != SLIDE]
    assert not np.any(others)
