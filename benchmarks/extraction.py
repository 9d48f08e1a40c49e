"""Slide to bag: how near extraction comes to its parts measured alone, and beside the loop that CLAM and TRIDENT write.

Three parts are measured alone in the same run: reading (decode and resize), encoding, and measuring the quality of
tiles. On cores that all of them share, nothing can be faster than 1 / (their sum); on a GPU, than the encoder alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import openslide
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from wsi_mil.bags import read_bag
from wsi_mil.compute import cores
from wsi_mil.encoders import Encoder, build_encoder, choose_device, limit_threads, lone_threads
from wsi_mil.grid import TileGrid, lay_grid
from wsi_mil.slides import open_slide, read_tiles
from wsi_mil.synthetic import draw_cohort
from wsi_mil.synthetic.mosaic import write_mosaic
from wsi_mil.tissue import measure_tiles

NATIVE, MPP, SIZE_PX = 0.25, 0.5, 256
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def grid_of(path: Path, tiles: int) -> TileGrid:
    """The first whole tiles of the slide."""
    with open_slide(path) as slide:
        ref = slide.ref()
        coords, extent, step = lay_grid(ref, size_px=SIZE_PX, mpp=MPP)
        whole = np.flatnonzero((coords + np.array(extent) <= np.array(ref.size_l0)).all(axis=1))[:tiles]
        share = np.ones(len(coords), np.float32)
        return TileGrid(ref, coords, share, SIZE_PX, MPP, extent_l0=extent, step_l0=step).take(whole)


def alone(path: Path, grid: TileGrid, encoder: Encoder, *, batch: int, readers: int) -> dict[str, float]:
    """Seconds of each part of the work by itself."""
    found, kept = {}, []
    with open_slide(path) as slide:
        start = time.perf_counter()
        for one in read_tiles(slide, grid, batch_size=batch, threads=readers, reuse=0):
            if len(kept) < 4:
                kept.append(one.pixels.copy())
        found["read"] = time.perf_counter() - start
    pixels = np.concatenate(kept)
    count = max(cores(), len(grid) // batch)
    with lone_threads(cores() if encoder.device.type == "cpu" else 1) as pool:
        list(pool.map(encoder.encode, [pixels[:batch]] * cores()))
        start = time.perf_counter()
        list(pool.map(encoder.encode, [pixels[:batch]] * count))
        found["encode"] = (time.perf_counter() - start) * len(grid) / (count * len(pixels[:batch]))
    start, done = time.perf_counter(), 0
    while done < len(grid) // 4:
        measure_tiles(pixels[:batch])
        done += len(pixels[:batch])
    # One core measures here; in extraction all of them do.
    found["measure"] = (time.perf_counter() - start) * len(grid) / done / cores()
    return found


def whole(path: Path, grid: TileGrid, encoder: Encoder, folder: Path, *, batch: int, readers: int) -> float:
    """Seconds of the product's own extraction, from an open slide to a bag on disk."""
    from wsi_mil.bags import BagWriter
    from wsi_mil.stages.extract import encode_batches
    from wsi_mil.stages.pace import Stopwatch
    from wsi_mil.stages.tokens import bag_rows
    from wsi_mil.tissue import MEASURES

    start, clock = time.perf_counter(), Stopwatch()
    with open_slide(path) as slide:
        writer = BagWriter(
            grid, encoder.contract, dim=encoder.dim, budget_bytes=1 << 30, folder=folder, quality=MEASURES
        )
        with writer:
            batches = clock.waits(read_tiles(slide, grid, batch_size=batch, threads=readers))
            hands = cores() if encoder.device.type == "cpu" else 1
            for _ in encode_batches(batches, encoder, writer, bag_rows(grid, encoder), None, clock, hands=hands):
                pass
            writer.save(folder / "bag.h5")
    seconds = time.perf_counter() - start
    assert len(read_bag(folder / "bag.h5").features) == len(grid)
    return seconds


class _Tiles(Dataset[torch.Tensor]):
    """Tiles as a script reads them: read_region, resize, to a normalised float tensor, one by one."""

    def __init__(self, path: Path, grid: TileGrid, input_px: int) -> None:
        self.path, self.places, self.side = str(path), grid.coords_l0.tolist(), round(grid.extent_l0[0])
        self.input_px, self.slide = input_px, None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> torch.Tensor:
        self.slide = self.slide or openslide.OpenSlide(self.path)
        tile = self.slide.read_region(tuple(self.places[number]), 0, (self.side, self.side)).convert("RGB")
        pixels = np.asarray(tile.resize((self.input_px, self.input_px), Image.Resampling.BICUBIC), np.float32) / 255
        return torch.from_numpy(((pixels - MEAN) / STD).transpose(2, 0, 1).copy())


def plain_loop(path: Path, grid: TileGrid, module: nn.Module, folder: Path, *, input_px: int, batch: int) -> float:
    """Seconds of the usual script: a DataLoader with workers, fp32, and rows appended to HDF5 after each batch."""
    start = time.perf_counter()
    loader = DataLoader(_Tiles(path, grid, input_px), batch_size=batch, num_workers=cores())
    with h5py.File(folder / "plain.h5", "w") as file, torch.inference_mode():
        stored = None
        for tiles in loader:
            features = module(tiles).numpy()
            if stored is None:
                shape = (None, features.shape[1])
                stored = file.create_dataset("features", (0, shape[1]), "f4", maxshape=shape, chunks=(1, shape[1]))
            stored.resize(len(stored) + len(features), axis=0)
            stored[-len(features) :] = features
    return time.perf_counter() - start


def main() -> None:
    """Print, for each encoder, the share of the limit that is reached and the ratio to the plain loop."""
    import timm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="a JPEG slide whose tiles are repeated; default: drawn")
    parser.add_argument("--tiles", type=int, default=600)
    parser.add_argument("--encoders", default="offline,timm:resnet18,timm:vit_small_patch16_224")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    device = choose_device("auto")
    limit_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), arguments.source
        if source is None:
            draw_cohort(folder, slides=12, seed=0, side_px=(4000, 4000))
            source = folder / "slides" / "S01.tiff"
        path = folder / "mosaic.svs"
        write_mosaic(path, source, side_px=20_000, mpp=NATIVE)
        grid = grid_of(path, arguments.tiles)
        print(f"{len(grid)} tiles of {SIZE_PX} px at {MPP} um/px from {NATIVE}, {cores()} cores, {device}")
        heads = ("read/s", "encode/s", "measure/s", "limit/s", "reached/s", "share", "plain/s", "ratio")
        print(f"{'encoder':>30} {'':>5} " + " ".join(f"{head:>9}" for head in heads))
        how = {"batch": arguments.batch, "readers": cores()}
        for encoder_name in arguments.encoders.split(","):
            plain = None
            for precision in arguments.precisions.split(",") if encoder_name != "offline" else ["fp32"]:
                encoder = build_encoder(
                    encoder_name,
                    tile_px=SIZE_PX,
                    tile_mpp=MPP,
                    precision=precision,
                    weights=None if encoder_name == "offline" else "random",
                    device=device,
                )
                parts = min((alone(path, grid, encoder, **how) for _ in range(2)), key=lambda one: sum(one.values()))
                limit = parts["encode"] if device != "cpu" else sum(parts.values())
                seconds = min(whole(path, grid, encoder, folder, **how) for _ in range(2))
                if plain is None and encoder_name.startswith("timm:"):
                    module = timm.create_model(encoder_name.removeprefix("timm:"), num_classes=0).eval().to(device)
                    options = {"input_px": encoder.contract.input_px, "batch": arguments.batch}
                    plain = plain_loop(path, grid, module, folder, **options)
                rates = [len(grid) / parts[part] for part in ("read", "encode", "measure")]
                reached = f"{len(grid) / limit:>9.0f} {len(grid) / seconds:>9.0f} {limit / seconds:>9.0%}"
                beside = f"{len(grid) / plain:>9.0f} {plain / seconds:>9.2f}" if plain else f"{'-':>9} {'-':>9}"
                told = " ".join(f"{rate:>9.0f}" for rate in rates)
                print(f"{encoder_name:>30} {precision:>5} {told} {reached} {beside}", flush=True)


if __name__ == "__main__":
    main()
