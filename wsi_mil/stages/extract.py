"""Grid to bag: pixels of each tile to a vector, one HDF5 a slide."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from wsi_mil import encoders, files
from wsi_mil.bags import BagWriter, read_grid
from wsi_mil.compute import cores
from wsi_mil.config import StudyPath
from wsi_mil.errors import EmptyItem, EncoderError, StageError
from wsi_mil.grid import TileStatus
from wsi_mil.layout import folder_name
from wsi_mil.slides import TileBatch, read_tiles
from wsi_mil.stages import ledger
from wsi_mil.stages.pace import Stopwatch, pace
from wsi_mil.stages.quality import Quality, counts, judge, left_out
from wsi_mil.stages.scales import encode_scales
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.stains import stain_map
from wsi_mil.stages.tokens import BagRows, bag_rows
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import MEASURES, measure_tiles

Done = TypeVar("Done")

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
    shrink: bool = False
    """Let the JPEG decoder make tiles coarser than the slide's finest level, where it can: faster, and different from
    resampled pixels by about a grey level (docs/slides.md)."""
    stain: Literal["none", "macenko"] = "none"
    """Bring each slide's stains to one reference before encoding. Encoders trained on many laboratories do not need it,
    and lose by it where its estimate fails; an encoder of natural images may gain."""
    stain_jitter: float = Field(default=0.0, ge=0, le=0.5)
    """Change each slide's stains at random by up to this share before encoding (0.05 little, 0.2 much): a second bag of
    each slide, in another work folder, to see how far features and predictions follow the stain. 0 changes nothing."""
    stain_seed: int = Field(default=0, ge=0)
    """Of the jitter."""
    quality: Quality = Quality()
    """Blur, ink, folds and the like: measured on every tile, stored in the bag, and told in the report."""

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
        start, clock = time.perf_counter(), Stopwatch()
        with open_item(item, shrink=self.shrink) as slide:
            if slide.fingerprint != grid.slide.fingerprint:
                raise StageError(
                    f"the slide {item.path!r} is not the one its tiles were laid on: run tissue and tile again"
                )
            stain = stain_map(slide, grid, stain=self.stain, jitter=self.stain_jitter, seed=self.stain_seed)
            rows = bag_rows(grid, encoder, coarser=work.study.tile.coarser)
            writer = BagWriter(
                rows.grid,
                # The jitter is no part of the contract: jittered bags are meant to lie beside the others.
                replace(encoder.contract, stain=self.stain, scales=work.study.tile.coarser),
                dim=encoder.dim,
                budget_bytes=runtime.bag_budget_mb << 20,
                folder=self.folder(work),
                quality=MEASURES,
            )
            with writer:
                hands = self.hands(encoder, work)
                # `hands` batches are still being encoded when the next is asked for.
                batch = runtime.batch_tiles or _batch_tiles(encoder)
                batches = read_tiles(slide, grid, batch_size=batch, threads=runtime.readers, reuse=hands)
                for done in encode_batches(clock.waits(batches), encoder, writer, rows, stain, clock, hands=hands):
                    tick(done, len(grid))
                facts = self._judge(writer, rows.per_tile)
                scales = encode_scales(slide, grid, encoder, work, stain=stain)
                with clock("write"):
                    writer.save(draft, scales=scales)
            steps = {**clock.seconds, **slide.clock.steps}
        wall_s = time.perf_counter() - start
        told = pace(steps, wall_s=wall_s, waited_s=clock.waited_s, threads=runtime.readers, hands=hands)
        return {"tiles": len(grid), **facts, "tiles_per_s": round(len(grid) / wall_s, 1), "pace": told}

    def _judge(self, writer: BagWriter, per_tile: int) -> dict[str, Any]:
        """Mark the tiles that are left out, and count all faults. Raises EmptyItem where no tile is left.

        `per_tile` rows of the bag are one tile.
        """
        faults = judge(self.quality, writer.quality, writer.status)
        out = left_out(self.quality, faults)
        writer.exclude(out)
        if out.all():
            told = ", ".join(f"{name} {int(faults[name].sum())}" for name in self.quality.exclude)
            raise EmptyItem(f"all {len(out)} tiles are left out for their quality ({told}): see extract.quality")
        return {
            "unreadable": int((writer.status == TileStatus.UNREADABLE).sum()) // per_tile,
            "left_out": int(out.sum()) // per_tile,
            "faults": {name: count // per_tile for name, count in counts(faults).items()},
        }

    def hands(self, encoder: encoders.Encoder, work: Work) -> int:
        """How many batches are under way at a time: one a core on a CPU, two on a GPU (one computes, one is copied)."""
        return (work.study.runtime.threads or cores()) if encoder.device.type == "cpu" else encoders.HANDS

    def load_encoder(self, work: Work) -> encoders.Encoder:
        """The encoder, loaded once a process."""
        runtime, tile = work.study.runtime, work.study.tile
        device = encoders.choose_device(runtime.device)
        encoders.limit_threads(runtime.threads or cores())
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


def encode_batches(
    batches: Iterable[TileBatch],
    encoder: encoders.Encoder,
    writer: BagWriter,
    rows: BagRows,
    stain: encoders.StainMap | None,
    clock: Stopwatch,
    *,
    hands: int,
) -> Iterator[int]:
    """Encode and measure batches, `hands` at a time, and put each into the bag; how many tiles are done after each.

    On a CPU a batch a core, each with one thread: threads that share a batch wait for each other at every layer, and
    for readers that have taken their core.
    """

    def work(batch: TileBatch) -> tuple[TileBatch, np.ndarray, dict[str, np.ndarray]]:
        with clock("stain"):
            pixels = stain.apply(batch.pixels) if stain else batch.pixels
        with clock("encode"):
            # The writer checks each vector, and names slide and tile.
            features = encoder.encode(pixels, finite=False)
        with clock("measure"):
            return batch, features, measure_tiles(batch.pixels)

    done = 0
    with encoders.lone_threads(hands) as pool:
        for batch, features, measured in _in_order(pool, work, batches, ahead=hands):
            with clock("write"):
                quality = {name: rows.spread(one) for name, one in measured.items()}
                writer.put(rows.of(batch.index), features, rows.spread(batch.status), quality=quality)
            done += len(batch.index)
            yield done


def _in_order(
    pool: Executor, work: Callable[[TileBatch], Done], batches: Iterable[TileBatch], *, ahead: int
) -> Iterator[Done]:
    """What `work` makes of each batch, in their order; at most `ahead` are under way besides the one that is given."""
    waiting: deque[Future[Done]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@lru_cache(maxsize=1)
def _batch_tiles(encoder: encoders.Encoder) -> int:
    """Tried out once a process."""
    return encoders.choose_batch_tiles(encoder)


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
