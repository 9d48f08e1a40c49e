"""Training on bags that do not fit their budget: memory is as large after twenty epochs as after two."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts.store import some_contract, some_slide

from wsi_mil.bags import Bag, bag_to_hdf5
from wsi_mil.grid import TileGrid

BAGS, TILES, DIM = 6, 6000, 512
BAG_BYTES = TILES * (2 * DIM + 16)

TRAINED = """
import sys
from pathlib import Path
import torch
from wsi_mil.models import build_model
from wsi_mil.stages.features import BagFiles
from wsi_mil.stages.units import UnitBags
from wsi_mil.tasks import Classification
from wsi_mil.training import Cached, FitSettings, fit

def anonymous():
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["RssAnon"].split()[0]) << 10

paths = sorted(Path(sys.argv[1]).glob("*.h5"))
units = [[2 * number, 2 * number + 1] for number in range(len(paths) // 2)] if sys.argv[3] == "patient" else \
    [[number] for number in range(len(paths))]
source = Cached(UnitBags(BagFiles(paths), units), budget_bytes=int(sys.argv[4]))
fit(
    build_model("abmil", dim=512, n_out=2, seed=0, hidden=8, attention=4),
    source,
    fit_index=range(len(units)),
    select_index=[],
    targets=torch.arange(len(units)) % 2,
    task=Classification(classes=("0", "1")).fit({"a": {"label": "0"}, "b": {"label": "1"}}),
    settings=FitSettings(epochs=20, patience=0, tiles_per_bag=int(sys.argv[2])),
    seed=0,
    progress=lambda row: print(int(row["epoch"]), anonymous()),
)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bags of 6 MB each."""
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    coords = np.stack(np.divmod(np.arange(TILES), 100), axis=1) * 10
    for number in range(BAGS):
        slide = replace(some_slide(f"S{number}"), size_l0=(2000, 2000))
        grid = TileGrid(slide, coords, np.ones(TILES, np.float32), 256, 0.5, (10.0, 10.0), (10.0, 10.0))
        features = random.normal(size=(TILES, DIM)).astype(np.float16)
        bag = Bag(slide, features, grid, some_contract(DIM), np.zeros(TILES, np.uint8))
        (folder / f"S{number}.h5").write_bytes(bag_to_hdf5(bag))
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is told by Linux alone")
@pytest.mark.parametrize(("tiles", "unit"), [(0, "slide"), (512, "patient")])
def test_memory_does_not_grow_over_epochs(large: Path, tiles: int, unit: str) -> None:
    budget = BAG_BYTES * 5 // 2
    command = [sys.executable, "-c", TRAINED, str(large), str(tiles), unit, str(budget)]
    # Large blocks are given back when they are freed, so that what is counted is what is held.
    told_malloc = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=told_malloc)
    told = dict(map(int, line.split()) for line in done.stdout.splitlines())
    assert len(told) == 20
    early, late = (min(told[epoch] for epoch in some) for some in (range(2, 6), range(17, 21)))
    assert late - early < BAG_BYTES, told
