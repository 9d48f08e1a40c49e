"""Whether a map tells what the model used: tiles taken away and put back by its order, beside a random order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

STEPS = 10
"""Shares of the tiles at which the model is asked: a tenth, two tenths ... all."""

ORDERS = 5
"""Random orders that are averaged."""

Ask = Callable[[Bool[np.ndarray, "tile"]], float]
"""What the model says of the bag where only some tiles are kept; on the axis of contributions, such as log-odds."""


@dataclass(frozen=True)
class Faithfulness:
    """Areas between curves over the share of tiles that is kept, 0 to 1, in units of what the model was asked for.

    Both are positive where the order knows what the model uses, and 0 on average for a random one.
    """

    deletion: float
    """Random less deletion: how much more is lost where the highest tiles go first."""
    insertion: float
    """Insertion less random: how much more is gained where the highest tiles come first."""


def faithfulness(
    ask: Ask,
    maps: Mapping[str, Float[np.ndarray, "tile"]],
    *,
    steps: int = STEPS,
    orders: int = ORDERS,
    seed: int = 0,
) -> dict[str, Faithfulness]:
    """Deletion and insertion of every map of one bag (Samek et al. 2017; Petsiuk et al. 2018; for bags: xMIL 2024).

    Tiles are taken out of the bag, not painted over. One tile at least is kept, since no model reads an empty bag;
    equal scores are ordered by chance, once for all maps.
    """
    count = len(next(iter(maps.values())))
    kept = np.unique(np.maximum(1, np.rint(np.linspace(0, 1, steps + 1) * count))).astype(np.int64)
    random = np.random.default_rng(seed)
    shuffled = [random.permutation(count) for _ in range(orders)]
    whole = ask(np.ones(count, dtype=bool))

    def area(order: Int64[np.ndarray, "tile"]) -> float:
        said = [whole if number == count else ask(_mask(order[:number], count)) for number in kept]
        return _area(kept / count, np.array(said, dtype=np.float64))

    by_chance = float(np.mean([area(order) for order in shuffled]))
    found = {}
    for name, scores in maps.items():
        order = shuffled[0][np.argsort(-scores[shuffled[0]], kind="stable")]
        found[name] = Faithfulness(deletion=by_chance - area(order[::-1]), insertion=area(order) - by_chance)
    return found


def rank_correlation(first: Float[np.ndarray, "tile"], second: Float[np.ndarray, "tile"]) -> float:
    """Spearman's coefficient; 0 where either map is the same everywhere, since it then tells nothing of the other."""
    from scipy.stats import rankdata

    one, other = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / size) if size > 0 else 0.0


def _mask(tiles: Int64[np.ndarray, "some"], count: int) -> Bool[np.ndarray, "tile"]:
    mask = np.zeros(count, dtype=bool)
    mask[tiles] = True
    return mask


def _area(shares: Float64[np.ndarray, "step"], values: Float64[np.ndarray, "step"]) -> float:
    """By trapezoids; a bag of one tile has no area."""
    return float(((values[1:] + values[:-1]) / 2 * np.diff(shares)).sum())
