"""Grid to bag: pixels of each tile to a vector, one HDF5 a slide."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from wsi_mil import encoders, files
from wsi_mil.bags import BagWriter, read_grid
from wsi_mil.compute import cores
from wsi_mil.config import StudyPath
from wsi_mil.errors import StageError
from wsi_mil.grid import TileStatus
from wsi_mil.layout import folder_name
from wsi_mil.slides import read_tiles
from wsi_mil.stages import ledger
from wsi_mil.stages.scales import encode_scales
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.work import Work, open_item

RGB_QUALITY = ("red_mean", "green_mean", "blue_mean", "red_sd", "green_sd", "blue_sd")
"""Per tile, 0 to 1: what the colour baseline learns from, and what a report can sort tiles by."""


class Extract(Stage):
    """Turn the tiles of each slide into a bag of features."""

    name: ClassVar[str] = "extract"

    encoder: str = "offline"
    """offline (embedded, no weights), or timm:MODEL."""
    weights: Literal["", "random"] | StudyPath = Field(default="", union_mode="left_to_right")
    """File of the encoder's weights (safetensors, or a state dict), or `random` for an untrained network."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder; it changes features slightly, so it is part of what a bag is."""

    @property
    def after(self) -> tuple[str, ...]:
        """The tile stage."""
        return ("tile",)

    def folder(self, work: Work) -> Path:
        """extract/<encoder>."""
        return work.root / self.name / folder_name(self.encoder)

    def items(self, work: Work) -> list[Item]:
        """The slides."""
        return work.slide_items()

    def output(self, item: Item, work: Work) -> Path:
        """The bag."""
        return self.folder(work) / f"{item.name}.h5"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The grid, and the file of weights."""
        grid = files.digest_file(ledger.require("tile", item.name, work))
        return [grid, repr(item.mpp), *([_digest_of(self.weights)] if isinstance(self.weights, Path) else [])]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Read, encode and write the tiles, a batch at a time."""
        grid, runtime = read_grid(ledger.require("tile", item.name, work)), work.study.runtime
        encoder = self.load_encoder(work)
        start, encoding = time.perf_counter(), 0.0
        with open_item(item) as slide:
            if slide.fingerprint != grid.slide.fingerprint:
                raise StageError(
                    f"the slide {item.path!r} is not the one its tiles were laid on: run tissue and tile again"
                )
            writer = BagWriter(
                grid,
                replace(encoder.contract, scales=work.study.tile.coarser),
                dim=encoder.dim,
                budget_bytes=runtime.bag_budget_mb << 20,
                folder=self.folder(work),
                quality=RGB_QUALITY,
            )
            done = 0
            with writer:
                batches = read_tiles(slide, grid, batch_size=runtime.batch_tiles, threads=runtime.readers)
                for batch in batches:
                    before = time.perf_counter()
                    features = encoder.encode(batch.pixels)
                    encoding += time.perf_counter() - before
                    writer.put(batch.index, features, batch.status, quality=rgb_statistics(batch.pixels))
                    done += len(batch.index)
                    tick(done, len(grid))
                writer.save(draft, scales=encode_scales(slide, grid, encoder, work))
                unreadable = int((writer.status == TileStatus.UNREADABLE).sum())
        seconds = time.perf_counter() - start
        return {
            "tiles": len(grid),
            "unreadable": unreadable,
            "tiles_per_s": round(len(grid) / seconds, 1),
            "encoder_share": round(encoding / seconds, 3),
        }

    def load_encoder(self, work: Work) -> encoders.Encoder:
        """The encoder, loaded once a process."""
        runtime, tile = work.study.runtime, work.study.tile
        encoders.limit_threads(runtime.threads or cores())
        device = encoders.choose_device(runtime.device)
        return _encoder(self.encoder, str(self.weights), self.precision, tile.size_px, tile.mpp, device)


def rgb_statistics(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each colour of each tile, 0 to 1, from uint8 (tile, size, size, 3)."""
    flat = pixels.reshape(len(pixels), -1, 3)
    means = flat.mean(axis=1, dtype=np.float64) / 255
    squares = np.einsum("tpc,tpc->tc", flat, flat, dtype=np.float64) / flat.shape[1] / 255**2
    sds = np.sqrt(np.maximum(squares - means**2, 0))
    columns = np.concatenate([means, sds], axis=1).astype(np.float32)
    return {name: columns[:, number] for number, name in enumerate(RGB_QUALITY)}


@lru_cache(maxsize=1)
def _encoder(name: str, weights: str, precision: str, size_px: int, mpp: float, device: str) -> encoders.Encoder:
    return encoders.build_encoder(
        name, tile_px=size_px, tile_mpp=mpp, precision=precision, weights=weights or None, device=device
    )


def _digest_of(path: Path) -> str:
    if not path.exists():
        raise StageError(f"extract.weights {str(path)!r} does not exist")
    return files.digest_file(path)
