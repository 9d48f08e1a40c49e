"""Contours of a heatmap for QuPath: what lies at or above a threshold, as annotations in level-0 pixels."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Int64
from shapely import MultiPolygon, Polygon

from wsi_mil.errors import StageError
from wsi_mil.heatmaps.heatmap import Heatmap
from wsi_mil.heatmaps.mosaic import lay_mosaic, side_by_side

COLOURS = ((214, 39, 40), (255, 127, 14), (242, 200, 15), (140, 140, 140))
"""Of the contours, the highest threshold first; the last serves all that follow."""

FINE_PX = 4
"""Pixels to a step where tiles overlap or lie on no lattice, so that a contour is right to an eighth of a step."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "wsi_mil/contours")


def contour(heatmap: Heatmap, channel: str, threshold: float) -> MultiPolygon:
    """The area whose score is at least a threshold, in level-0 pixels, cut at the slide's edge.

    Borders run between tiles, each at a whole level-0 pixel. Where tiles overlap, their scores are averaged first.
    """
    grid = heatmap.grid
    px = 1 if side_by_side(grid) else FINE_PX
    mosaic = lay_mosaic(grid, heatmap.column(channel), px_per_tile=px)
    high: Bool[np.ndarray, "h w"] = mosaic.known & (mosaic.values >= threshold)
    rows, columns = np.nonzero(high)
    xs, ys = (
        _edges(count, by, size)
        for count, by, size in zip(high.shape[::-1], mosaic.downsample, grid.slide.size_l0, strict=True)
    )
    boxes = shapely.box(xs[columns], ys[rows], xs[columns + 1], ys[rows + 1])
    # Neighbours share their corners exactly, which lets shared sides be dropped several times faster than by a union.
    # What remains runs straight through corners that are no corners any more. Older GEOS keeps a ring's first, so it
    # must be a true one: of a normal ring it is the leftmost.
    pieces: Any = shapely.normalize(shapely.get_parts(shapely.coverage_union_all(boxes)))
    pieces = shapely.simplify(pieces, 0, preserve_topology=False)
    return shapely.normalize(MultiPolygon([piece for piece in pieces if not piece.is_empty]))


def heatmap_to_contours(heatmap: Heatmap, channel: str, thresholds: Sequence[float]) -> str:
    """The text of a FeatureCollection with one annotation for each connected piece above each threshold.

    Its class names channel and threshold; the measurements are the threshold and the area in square millimetres. The
    highest threshold comes last, so that QuPath draws it above the others. Raises StageError for a threshold that is
    not finite.
    """
    features: list[str] = []
    ordered = sorted(set(thresholds), reverse=True)
    for number, threshold in reversed(list(enumerate(ordered))):
        if not math.isfinite(threshold):
            raise StageError(f"a contour of {channel!r} at {threshold}: a threshold must be a finite number")
        told = f"{channel} >= {threshold:.4g}"
        colour = COLOURS[min(number, len(COLOURS) - 1)]
        measured = {f"{channel} threshold": threshold}
        whole = contour(heatmap, channel, threshold)
        features += [_feature(heatmap, piece, told, colour, measured) for piece in whole.geoms]
    return '{"type":"FeatureCollection","features":[\n' + ",\n".join(features) + "\n]}\n"


def top_thresholds(heatmap: Heatmap, channel: str, shares: Sequence[float]) -> list[float]:
    """The lowest score among each share of the highest tiles; none where no tile has a score."""
    scores = heatmap.column(channel)
    known = scores[np.isfinite(scores)]
    return [float(np.quantile(known, 1 - share, method="higher")) for share in shares] if len(known) else []


def _edges(count: int, by: float, size_l0: int) -> Int64[np.ndarray, "edge"]:
    """Where the columns or rows of a mosaic begin and end, in level-0 pixels, rounded as the tiles' own places are."""
    return np.minimum(np.rint(np.arange(count + 1) * by).astype(np.int64), size_l0)


def _feature(
    heatmap: Heatmap, piece: Polygon, told: str, colour: tuple[int, int, int], measured: dict[str, float]
) -> str:
    geometry = {
        "type": "Polygon",
        "coordinates": [shapely.get_coordinates(ring).tolist() for ring in (piece.exterior, *piece.interiors)],
    }
    mpp = heatmap.slide.mpp
    area = {"area mm2": float(f"{piece.area * mpp[0] * mpp[1] * 1e-6:.6g}")} if all(mpp) else {}
    place = f"{heatmap.slide.fingerprint} {told} {json.dumps(geometry['coordinates'])}"
    feature = {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, place)),
        "geometry": geometry,
        "properties": {
            "objectType": "annotation",
            "name": told,
            "classification": {"name": told, "color": list(colour)},
            "measurements": measured | area,
            "isLocked": True,
        },
    }
    return json.dumps(feature, separators=(",", ":"))
