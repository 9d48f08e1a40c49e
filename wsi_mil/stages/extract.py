"""Grid to bag: pixels of each tile to a vector, one HDF5 a slide."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from wsi_mil import encoders, files
from wsi_mil.bags import BagWriter, read_grid
from wsi_mil.compute import cores
from wsi_mil.config import StudyPath
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.grid import TileStatus
from wsi_mil.layout import folder_name
from wsi_mil.slides import read_tiles
from wsi_mil.stages import ledger
from wsi_mil.stages.quality import Quality, counts, judge, left_out
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.stains import stain_map
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import MEASURES, measure_tiles


class Extract(Stage):
    """Turn the tiles of each slide into a bag of features."""

    name: ClassVar[str] = "extract"

    encoder: str = "offline"
    """offline (embedded, no weights), or timm:MODEL."""
    weights: Literal["", "random"] | StudyPath = Field(default="", union_mode="left_to_right")
    """File of the encoder's weights (safetensors, or a state dict), or `random` for an untrained network."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder; it changes features slightly, so it is part of what a bag is."""
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
            stain = stain_map(slide, grid, stain=self.stain, jitter=self.stain_jitter, seed=self.stain_seed)
            writer = BagWriter(
                grid,
                # The jitter is no part of the contract: jittered bags are meant to lie beside the others.
                replace(encoder.contract, stain=self.stain),
                dim=encoder.dim,
                budget_bytes=runtime.bag_budget_mb << 20,
                folder=self.folder(work),
                quality=MEASURES,
            )
            done = 0
            with writer:
                batches = read_tiles(slide, grid, batch_size=runtime.batch_tiles, threads=runtime.readers)
                for batch in batches:
                    before = time.perf_counter()
                    features = encoder.encode(stain.apply(batch.pixels) if stain else batch.pixels)
                    encoding += time.perf_counter() - before
                    writer.put(batch.index, features, batch.status, quality=measure_tiles(batch.pixels))
                    done += len(batch.index)
                    tick(done, len(grid))
                facts = self._judge(writer)
                writer.save(draft)
        seconds = time.perf_counter() - start
        return {
            "tiles": len(grid),
            **facts,
            "tiles_per_s": round(len(grid) / seconds, 1),
            "encoder_share": round(encoding / seconds, 3),
        }

    def _judge(self, writer: BagWriter) -> dict[str, Any]:
        """Mark the tiles that are left out, and count all faults. Raises EmptyItem where no tile is left."""
        faults = judge(self.quality, writer.quality, writer.status)
        out = left_out(self.quality, faults)
        writer.exclude(out)
        if out.all():
            told = ", ".join(f"{name} {int(faults[name].sum())}" for name in self.quality.exclude)
            raise EmptyItem(f"all {len(out)} tiles are left out for their quality ({told}): see extract.quality")
        return {
            "unreadable": int((writer.status == TileStatus.UNREADABLE).sum()),
            "left_out": int(out.sum()),
            "faults": counts(faults),
        }

    def load_encoder(self, work: Work) -> encoders.Encoder:
        """The encoder, loaded once a process."""
        runtime, tile = work.study.runtime, work.study.tile
        encoders.limit_threads(runtime.threads or cores())
        device = encoders.choose_device(runtime.device)
        return _encoder(self.encoder, str(self.weights), self.precision, tile.size_px, tile.mpp, device)


@lru_cache(maxsize=1)
def _encoder(name: str, weights: str, precision: str, size_px: int, mpp: float, device: str) -> encoders.Encoder:
    return encoders.build_encoder(
        name, tile_px=size_px, tile_mpp=mpp, precision=precision, weights=weights or None, device=device
    )


def _digest_of(path: Path) -> str:
    if not path.exists():
        raise StageError(f"extract.weights {str(path)!r} does not exist")
    return files.digest_file(path)
