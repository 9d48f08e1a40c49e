"""Scores become colours: how they are spread over a colour map, and what the legend has to say about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from wsi_mil.errors import StageError, unknown

SEQUENTIAL = "viridis"
"""From dark blue to yellow: even to the eye, safe for the colour-blind, and unlike haematoxylin and eosin."""

DIVERGING = "RdBu_r"
"""From blue over white to red: safe for the colour-blind, with nothing to see at zero."""

PERCENTILE = 1.0
"""Per cent cut off at each end by the scale "percentile"; "signed" cuts as much off the largest sizes."""

COLOURS = 256


@dataclass(frozen=True)
class Colouring:
    """Where each score lies on a colour map, and how to read the map."""

    positions: Float32[np.ndarray, "tile"]
    """0 to 1, NaN where there is no score."""
    map: str
    ticks: tuple[tuple[float, str], ...]
    """Position on the map and text of each mark of the legend."""
    meaning: str
    """What the colours say, in words."""

    def table(self) -> UInt8[np.ndarray, "colour 3"]:
        """The colour map as 256 colours."""
        import matplotlib

        table = matplotlib.colormaps[self.map](np.linspace(0, 1, COLOURS))[:, :3]
        return np.asarray(np.rint(table * 255), dtype=np.uint8)


@dataclass(frozen=True)
class Shared:
    """Scores of all tiles that are to lie on one scale, and whose they are."""

    values: Float32[np.ndarray, "tile"]
    of: str
    """In the legend, such as "this patient's slides"."""


Limits = tuple[float, float] | Shared | None
"""Values at the ends of the map, or the scores that they and the ranks are taken from; None: those of the slide."""


def colouring(values: Float32[np.ndarray, "tile"], scale: str, *, limits: Limits = None) -> Colouring:
    """Spread scores over a colour map by a scale's name (see SCALES).

    `limits` put several slides on one scale; as two values not for "rank".
    """
    if scale not in SCALES:
        raise StageError(unknown("scale of a heatmap", scale, SCALES))
    if isinstance(limits, Shared):
        return _shared(values, scale, limits)
    if scale == "rank":
        if limits is not None:
            raise StageError("the scale 'rank' has no limits; leave them out, or choose 'range'")
        return _by_rank(values)
    found = values[np.isfinite(values)]
    low, high = limits or (_limits(found, scale) if len(found) else (0.0, 1.0))
    if not low < high:
        low, high = low - 0.5, low + 0.5
    with np.errstate(invalid="ignore"):
        positions = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    marks = tuple((share, _number(low + share * (high - low))) for share in (0.0, 0.5, 1.0))
    meaning = SCALES[scale] if limits is None else "coloured by value, on limits shared with other slides"
    return Colouring(positions, DIVERGING if scale == "signed" else SEQUENTIAL, marks, meaning)


def score_colours(
    values: Float32[np.ndarray, "tile"], scale: str = "rank", *, limits: Limits = None
) -> UInt8[np.ndarray, "tile 4"]:
    """RGBA of each score; wholly transparent where there is none."""
    spread = colouring(values, scale, limits=limits)
    known = np.isfinite(spread.positions)
    index = np.where(known, spread.positions, 0) * (COLOURS - 1)
    colours = np.zeros((len(values), 4), dtype=np.uint8)
    colours[:, :3] = spread.table()[np.rint(index).astype(np.int64)]
    colours[:, 3] = 255
    colours[~known] = 0
    return colours


def _by_rank(values: Float32[np.ndarray, "tile"]) -> Colouring:
    from scipy.stats import rankdata

    positions = np.full(len(values), np.nan, dtype=np.float32)
    known = np.isfinite(values)
    count = int(known.sum())
    # Equal scores share their mean rank; a single tile, or tiles all alike, lie in the middle.
    positions[known] = (rankdata(values[known]) - 1) / (count - 1) if count > 1 else 0.5
    return Colouring(positions, SEQUENTIAL, ((0.0, "lowest"), (0.5, "median"), (1.0, "highest")), SCALES["rank"])


def _shared(values: Float32[np.ndarray, "tile"], scale: str, shared: Shared) -> Colouring:
    found = np.sort(shared.values[np.isfinite(shared.values)])
    meaning = SCALES[scale].replace("this slide", shared.of)
    if scale != "rank":
        limits = _limits(found, scale) if len(found) else (0.0, 1.0)
        return replace(colouring(values, scale, limits=limits), meaning=meaning)
    known, positions = np.isfinite(values), np.full(len(values), np.nan, dtype=np.float32)
    # the mean rank of equal scores, as on a scale of one slide
    ranks = (np.searchsorted(found, values[known]) + np.searchsorted(found, values[known], side="right") - 1) / 2
    positions[known] = np.clip(ranks / (len(found) - 1), 0, 1) if len(found) > 1 else 0.5
    return replace(_by_rank(values), positions=positions, meaning=meaning)


def _limits(found: Float32[np.ndarray, "known"], scale: str) -> tuple[float, float]:
    if scale == "range":
        return float(found.min()), float(found.max())
    if scale == "percentile":
        low, high = np.percentile(found, [PERCENTILE, 100 - PERCENTILE])
        return float(low), float(high)
    size = float(np.percentile(np.abs(found), 100 - PERCENTILE)) or float(np.abs(found).max())
    return -size, size


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


SCALES = {
    "rank": "coloured by rank among the tiles of this slide",
    "range": "coloured by value, from the lowest to the highest tile of this slide",
    "percentile": "coloured by value, between the 1st and 99th percentile of this slide",
    "signed": "blue speaks against, red for; clipped at the 99th percentile of this slide",
}
"""How scores can be spread over colours, and what the legend says of each."""
