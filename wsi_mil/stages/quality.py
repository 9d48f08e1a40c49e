"""What is held to be wrong with a tile: thresholds on its measures, and which faults leave it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from pydantic import Field

from wsi_mil.config import Section
from wsi_mil.grid import TileStatus

Fault = Literal["blur", "pen", "fold", "edge", "blood", "white"]

FAULTS: dict[Fault, str] = {
    "blur": "focus",
    "pen": "pen",
    "fold": "fold",
    "edge": "edge",
    "blood": "blood",
    "white": "white",
}
"""The measure that each fault is read from."""

MOSTLY_WHITE = 0.5
"""Share of glass above which a tile is neither judged for focus nor asked how dense the slide's tissue is."""


class Quality(Section):
    """What is wrong with a tile, and what is done about it."""

    exclude: tuple[Fault, ...] = ()
    """Faults that leave a tile out of training and prediction: blur, pen, fold, edge, blood, white. None by default:
    attention learns to look elsewhere, and a threshold may take the lesion. Faults are counted whatever is here."""
    min_focus: float = Field(default=0.10, ge=0)
    """blur: least focus of a tile. At 0.5 um per pixel sharp tissue has 0.2 to 0.5, a blur of 1.5 px gives 0.1."""
    max_pen: float = Field(default=0.10, ge=0, le=1)
    """pen: largest share of green, blue or black ink."""
    max_fold: float = Field(default=2.0, ge=0)
    """fold: how many times the slide's usual density a tenth of the tile may reach. Dense epithelium may too."""
    max_edge: float = Field(default=0.25, ge=0, le=1)
    """edge: largest share of grey that is darker than glass: rims of bubbles, cover slips, dust."""
    max_blood: float = Field(default=0.50, ge=0, le=1)
    """blood: largest share of blood or red ink, which have one colour."""
    max_white: float = Field(default=0.90, ge=0, le=1)
    """white: largest share of empty glass."""


def judge(
    quality: Quality, measures: Mapping[str, Float32[np.ndarray, "tile"]], status: UInt8[np.ndarray, "tile"]
) -> dict[Fault, Bool[np.ndarray, "tile"]]:
    """Which tiles have which fault; tiles that could not be read have none."""
    read = status != TileStatus.UNREADABLE
    has_tissue = read & (measures["white"] < MOSTLY_WHITE)
    usual = float(np.median(measures["density"][has_tissue])) if has_tissue.any() else 1.0
    faults: dict[Fault, Bool[np.ndarray, "tile"]] = {
        "blur": has_tissue & (measures["focus"] < quality.min_focus),
        "pen": measures["pen"] > quality.max_pen,
        "fold": has_tissue & (measures["fold"] > quality.max_fold * usual),
        "edge": measures["edge"] > quality.max_edge,
        "blood": measures["blood"] > quality.max_blood,
        "white": measures["white"] > quality.max_white,
    }
    # Ink is dense too, and is told once.
    faults["fold"] &= ~faults["pen"]
    return {name: tiles & read for name, tiles in faults.items()}


def left_out(quality: Quality, faults: Mapping[Fault, Bool[np.ndarray, "tile"]]) -> Bool[np.ndarray, "tile"]:
    """Which tiles have a fault that leaves them out."""
    out = np.zeros_like(faults["blur"])
    for name in quality.exclude:
        out |= faults[name]
    return out


def counts(faults: Mapping[Fault, Bool[np.ndarray, "tile"]]) -> dict[str, int]:
    """Tiles with each fault; a tile may have several."""
    return {name: int(tiles.sum()) for name, tiles in faults.items()}
