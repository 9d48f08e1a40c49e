"""A heatmap for QuPath: every tile as a square in level-0 pixels that carries its scores as measurements.

QuPath (0.4 to 0.7) reads full-resolution pixels from the top left, wants a UUID as id, both name and colour in a
classification, and numbers only as measurements: a value that is not finite is left out. Tiles are of the light object
type `tile`, since thousands of annotations make it slow.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32

from wsi_mil.errors import StageError
from wsi_mil.heatmaps.heatmap import Heatmap

DECIMALS = 2
"""Of a level-0 pixel; as many as QuPath itself writes."""

TOP_COLOUR = (214, 39, 40)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "wsi_mil/heatmap")


def heatmap_to_geojson(heatmap: Heatmap, *, name: str = "", top: str = "", top_share: float = 0.1) -> str:
    """The text of a FeatureCollection that is dropped onto the slide in QuPath.

    `name` names every tile. `top` is a channel whose highest tiles (a tenth, or another share) are put into a class of
    their own. The same heatmap gives the same text: ids are UUIDv5 of the slide's content and the tile's place.
    """
    if not 0 < top_share <= 1:
        raise StageError(f"top_share is {top_share}, but must lie above 0 and at most at 1")
    highest = _highest(heatmap.column(top), top_share) if top else np.zeros(len(heatmap.grid), dtype=bool)
    label = json.dumps({"name": f"High {top}", "color": list(TOP_COLOUR)})
    extra = f'"name":{json.dumps(name)},' if name else ""
    features = []
    # Written by hand: a hundred thousand tiles take a second this way, and the json module with uuid.uuid5 four.
    for (x0, y0, x1, y1), told, high in zip(_corners(heatmap), _measurements(heatmap), highest.tolist(), strict=True):
        place = _uuid5(f"{heatmap.slide.fingerprint} {x0} {y0} {x1} {y1}")
        classified = f'"classification":{label},' if high else ""
        features.append(
            f'{{"type":"Feature","id":"{place}","geometry":{{"type":"Polygon","coordinates":'
            f"[[[{x0},{y0}],[{x1},{y0}],[{x1},{y1}],[{x0},{y1}],[{x0},{y0}]]]}},"
            f'"properties":{{"objectType":"tile",{extra}{classified}"measurements":{{{told}}},"isLocked":true}}}}'
        )
    return '{"type":"FeatureCollection","features":[\n' + ",\n".join(features) + "\n]}\n"


def _corners(heatmap: Heatmap) -> list[list[str]]:
    """Left, top, right, bottom of each tile in level-0 pixels, cut at the slide's edge, as JSON numbers."""
    first = heatmap.grid.coords_l0.astype(np.float64)
    last = np.minimum(first + heatmap.grid.extent_l0, heatmap.slide.size_l0)
    # Tiles share rows and columns: a number is put into words once, and not for each of its tiles.
    numbers, place = np.unique(np.concatenate([first, last], axis=1).round(DECIMALS), return_inverse=True)
    texts = np.array([repr(number) for number in numbers.tolist()], dtype=object)
    corners: list[list[str]] = texts[place.reshape(-1, 4)].tolist()
    return corners


def _measurements(heatmap: Heatmap) -> Iterator[str]:
    """The inside of each tile's measurements object."""
    keys = [json.dumps(channel) for channel in heatmap.channels]
    # A per cent sign in a channel's name must not be taken for a place to fill.
    whole = ",".join(f"{key.replace('%', '%%')}:%.7g" for key in keys)
    finite = np.isfinite(heatmap.scores)
    for scores, all_finite in zip(heatmap.scores.tolist(), finite.all(axis=1).tolist(), strict=True):
        if all_finite:
            yield whole % tuple(scores)
        else:
            yield ",".join(
                f"{key}:{score:.7g}" for key, score in zip(keys, scores, strict=True) if math.isfinite(score)
            )


def _uuid5(name: str) -> str:
    """As `str(uuid.uuid5(_NAMESPACE, name))`, without making the object, which takes most of the time."""
    digits = hashlib.sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def _highest(scores: Float32[np.ndarray, "tile"], share: float) -> Bool[np.ndarray, "tile"]:
    known = np.isfinite(scores)
    if not known.any():
        return known
    with np.errstate(invalid="ignore"):
        high: Bool[np.ndarray, "tile"] = scores >= np.quantile(scores[known], 1 - share)
    return high
