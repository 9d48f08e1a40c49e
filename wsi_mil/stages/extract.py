"""Grid to bag: pixels of each tile to a vector, one HDF5 a slide."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from wsi_mil import encoders, files
from wsi_mil.bags import BagWriter, read_grid
from wsi_mil.compute import cores
from wsi_mil.config import StudyPath
from wsi_mil.errors import EncoderError, StageError
from wsi_mil.grid import TileStatus
from wsi_mil.layout import folder_name
from wsi_mil.slides import read_tiles
from wsi_mil.stages import ledger
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.tokens import bag_rows
from wsi_mil.stages.work import Work, open_item

RGB_QUALITY = ("red_mean", "green_mean", "blue_mean", "red_sd", "green_sd", "blue_sd")
"""Per tile, 0 to 1: what the colour baseline learns from, and what a report can sort tiles by."""


RETRY_S = 60.0
"""How long an encoder that could not be loaded is not tried again."""


class Extract(Stage):
    """Turn the tiles of each slide into a bag of features."""

    name: ClassVar[str] = "extract"

    encoder: str = "offline"
    """offline (embedded, no weights), a name that `wsi-mil encoders` lists, timm:MODEL, or local:FOLDER."""
    weights: Literal["", "random"] | StudyPath = Field(default="", union_mode="left_to_right")
    """File or folder of the encoder's weights (safetensors, or a state dict), or `random` for an untrained network;
    empty takes them from the weights folder of this machine, else from the hub."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the encoder; it changes features slightly, so it is part of what a bag is."""
    pooling: Literal["", "cls", "mean", "cls+mean", "tokens"] = ""
    """How a vision transformer's tokens become vectors, where not as the encoder's row says; `tokens` makes every patch
    of the network an instance of the bag, for maps as fine as its patches."""
    any_scale: bool = False
    """Take tiles at a scale that the encoder was not trained at."""

    @property
    def after(self) -> tuple[str, ...]:
        """The tile stage."""
        return ("tile",)

    def folder(self, work: Work) -> Path:
        """extract/<encoder>, with the pooling where one is asked for."""
        name = self.encoder.rpartition("/")[2] if self.encoder.startswith("local:") else self.encoder
        return work.root / self.name / folder_name(f"{name}-{self.pooling}" if self.pooling else name)

    def items(self, work: Work) -> list[Item]:
        """The slides."""
        return work.slide_items()

    def output(self, item: Item, work: Work) -> Path:
        """The bag."""
        return self.folder(work) / f"{item.name}.h5"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The grid, and the file of weights."""
        grid = files.digest_file(ledger.require("tile", item.name, work))
        given = [self.weights] if isinstance(self.weights, Path) else []
        given += [Path(self.encoder.removeprefix("local:"))] if self.encoder.startswith("local:") else []
        return [grid, repr(item.mpp), *(_digest_of(path) for path in given)]

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
            rows = bag_rows(grid, encoder)
            writer = BagWriter(
                rows.grid,
                encoder.contract,
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
                    # The writer checks each vector, and names slide and tile.
                    features = encoder.encode(batch.pixels, finite=False)
                    encoding += time.perf_counter() - before
                    colours = {name: rows.spread(one) for name, one in rgb_statistics(batch.pixels).items()}
                    writer.put(rows.of(batch.index), features, rows.spread(batch.status), quality=colours)
                    done += len(batch.index)
                    tick(done, len(grid))
                writer.save(draft)
                unreadable = int((writer.status == TileStatus.UNREADABLE).sum()) // rows.per_tile
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
        how = (self.precision, self.pooling, self.any_scale, runtime.compile)
        key = (self.encoder, str(self.weights), how, tile.size_px, tile.mpp, device)
        # Every slide asks: a hub that cannot be reached is asked once a minute, not for each of ten thousand.
        failed = _failures(key, int(time.monotonic() // RETRY_S))
        if failed:
            raise EncoderError(failed[0])
        try:
            return _encoder(*key)
        except EncoderError as error:
            failed.append(str(error))
            raise


def rgb_statistics(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each colour of each tile, 0 to 1, from uint8 (tile, size, size, 3)."""
    flat = pixels.reshape(len(pixels), -1, 3)
    means = flat.mean(axis=1, dtype=np.float64) / 255
    squares = np.einsum("tpc,tpc->tc", flat, flat, dtype=np.float64) / flat.shape[1] / 255**2
    sds = np.sqrt(np.maximum(squares - means**2, 0))
    columns = np.concatenate([means, sds], axis=1).astype(np.float32)
    return {name: columns[:, number] for number, name in enumerate(RGB_QUALITY)}


@lru_cache(maxsize=1)
def _encoder(
    name: str, weights: str, how: tuple[str, str, bool, bool], size_px: int, mpp: float, device: str
) -> encoders.Encoder:
    precision, pooling, any_scale, compiled = how
    return encoders.build_encoder(
        name, tile_px=size_px, tile_mpp=mpp, precision=precision, weights=weights or None, device=device,
        pooling=pooling, any_scale=any_scale, compiled=compiled,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _failures(key: tuple[object, ...], turn: int) -> list[str]:
    """A list to remember why an encoder could not be loaded, for as long as the turn is the same."""
    return []


def _digest_of(path: Path) -> str:
    if not path.exists():
        raise StageError(f"extract.weights {str(path)!r} does not exist")
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return files.digest(*(_file_digest(one, one.stat().st_mtime_ns) for one in inside if one.is_file()))


@lru_cache(maxsize=64)
def _file_digest(path: Path, changed_ns: int) -> str:
    """Once a process, since every slide asks and weights have gigabytes."""
    return files.digest_file(path)
