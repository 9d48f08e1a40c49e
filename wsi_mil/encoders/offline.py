"""The embedded default encoder: colour, texture and nuclei of a tile as numbers, with no weights and no download.

What it is: a fixed descriptor (descriptor.py), the same on every machine, flip and quarter turn, strong enough to be
a baseline that a foundation model has to beat, and to try a study out before the real features are made. What it is
not: a model of tissue. It has seen no histology and knows no cell types; for real work use a pathology foundation
model.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsi_mil import files
from wsi_mil.encoders import descriptor, scales, stain
from wsi_mil.encoders.device import Crew
from wsi_mil.encoders.encoder import Encoder
from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract

NAME = "offline"

REVISION = "1"
"""Raised by hand whenever a tile's vector changes by more than rounding; tests/golden holds it to that."""

SMALLEST_PX = 32
"""Smallest tile: the coarsest octave of the textures then has 4 pixels a side."""

BOUND = 8.0
"""Largest size of a number: those far out are bent towards it, so that one odd tile cannot rule a mean."""

CHUNK_PX = 8 * 256 * 256
"""Pixels that are described at a time: what is made of them fits the cache of a core."""


class OfflineEncoder(Encoder):
    """A tile as some 480 numbers of order 1; `names` says what each one is."""

    def __init__(self, *, tile_px: int, tile_mpp: float, precision: str = "fp32", device: str = "cpu") -> None:
        if tile_px < SMALLEST_PX:
            raise EncoderError(
                f"encoder {NAME!r} needs tiles of at least {SMALLEST_PX} px, not {tile_px}; set tile.size_px higher"
            )
        if precision != "fp32":
            raise EncoderError(
                f"encoder {NAME!r} computes in fp32 only, not {precision}; set extract.precision to fp32"
            )
        centres, reach = _constants()
        contract = EncoderContract(
            name=NAME,
            revision=REVISION,
            weights_digest=files.digest_json(
                [REVISION, scales.CENTRES.split(), scales.SCALES.split(), stain.unmixing(), BOUND, descriptor.WORK_PX]
            ),
            architecture='{"name": "stain-and-texture descriptor"}',
            input_px=descriptor.working_px(tile_px),
            resize="area",
            crop="none",
            mean=(),
            std=(),
            pooling="statistics over the tile",
            dim=len(centres),
            precision=precision,
            tile_px=tile_px,
            tile_mpp=tile_mpp,
            stain="none",
            source="built in",
            licence="Apache-2.0",
            saw_tcga="no",
            versions={"torch": torch.__version__, "numpy": np.__version__},
        )
        super().__init__(contract, device=device)
        self._centres, self._scales = (torch.from_numpy(values).to(self.device) for values in (centres, reach))
        self._crew: Crew | None = None
        self._chunk = max(1, CHUNK_PX // tile_px**2)

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of a vector is, as "group/channel/measure"."""
        blank = torch.zeros(1, SMALLEST_PX, SMALLEST_PX, 3, dtype=torch.uint8)
        return tuple(name for name, _ in descriptor.describe(blank))

    def _forward(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Tensor:
        chunks = torch.split(tiles, self._chunk)
        threads = torch.get_num_threads()
        if len(chunks) == 1 or threads == 1 or self.device.type != "cpu":
            return torch.cat([self._vectors(chunk) for chunk in chunks])
        if self._crew is None or self._crew.size != threads:
            self._crew = Crew(threads)
        return torch.cat(self._crew.map(self._vectors, chunks))

    def _vectors(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Float32[Tensor, "tile dim"]:
        raw = torch.stack([values for _, values in descriptor.describe(tiles)], dim=1)
        z = (raw - self._centres) / self._scales
        return z / (1 + (z / BOUND).square()).sqrt()


def _constants() -> tuple[np.ndarray, np.ndarray]:
    """Centres and scales, float32 [dim] each."""
    centres, reach = (np.array(text.split(), dtype=np.float32) for text in (scales.CENTRES, scales.SCALES))
    return centres, reach
