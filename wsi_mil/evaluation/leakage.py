"""Whether two bags hold the same tiles: a cheap signature of each, and a closer look at the pairs that are near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

SAMPLED = 512
"""Tiles behind a signature: their mean is off by about a twentieth of the tiles' spread."""

NEAR = 0.25
"""Bags whose means are nearer than this share of their tiles' spread are looked at closely. Two samples of one slide's
tiles differ by about 0.06."""

LOOKED_AT = 64
"""Tiles of one bag that are searched for in the other."""

SAME_TILE = 0.05
"""A tile counts as found where the other bag has one at less than this share of its distance from the mean tile.
Another arithmetic (float16, bf16, another library) moves a vector by 0.001 to 0.02."""

SAME_BAG = 0.8
"""Share of tiles found from which on two bags are the same slide. Features that tell tiles poorly apart (tokens of an
untrained network, ruled by their position) had up to .69 between different slides, twins with 1 % of noise 1.0."""

NEAREST = 3
"""Bags that each tested bag is compared with closely, at most: a twin is among the nearest."""


@dataclass(frozen=True)
class Signature:
    """What of a bag is kept to find its like."""

    mean: Float64[np.ndarray, "dim"]
    spread: float
    """Root of the summed variances of the features over tiles: how far a tile lies from the mean one."""


def signature(features: Float[np.ndarray, "tile dim"]) -> Signature:
    """Mean and spread over up to SAMPLED tiles, taken evenly."""
    values = np.asarray(features[_evenly(len(features), SAMPLED)], dtype=np.float64)
    mean = values.mean(axis=0)
    return Signature(mean, float(np.sqrt(((values - mean) ** 2).sum(axis=1).mean())))


def sampled(count: int) -> np.ndarray:
    """Rows of a bag of so many tiles that are enough for its signature, in rising order."""
    return _evenly(count, SAMPLED)


def near_pairs(tested: Mapping[str, Signature], learnt: Mapping[str, Signature]) -> list[tuple[str, str]]:
    """Pairs (tested, learnt from) whose signatures are near enough for a closer look; each side may be empty."""
    if not tested or not learnt:
        return []
    names = list(learnt)
    means = np.stack([learnt[name].mean for name in names])
    pairs = []
    for name, own in tested.items():
        distances = np.sqrt(((means - own.mean) ** 2).sum(axis=1))
        limits = NEAR * np.maximum(own.spread, [learnt[other].spread for other in names]) + 1e-12
        nearest = np.argsort(distances, kind="stable")[:NEAREST]
        pairs += [(name, names[place]) for place in nearest if distances[place] <= limits[place]]
    return pairs


def share_found(one: Float[np.ndarray, "tile dim"], other: Float[np.ndarray, "row dim"]) -> float:
    """Share of tiles of one bag that the other bag holds too, to a twentieth of what tells tiles apart.

    The larger of both directions: of a bag cut down all tiles are in the whole one, and not the other way round.
    LOOKED_AT tiles are searched for, none twice: empty glass is alike everywhere and proves nothing.
    """
    return max(_found(one, other), _found(other, one))


def _found(one: Float[np.ndarray, "tile dim"], other: Float[np.ndarray, "row dim"]) -> float:
    """Share of the tiles looked at of the first bag that the second holds."""
    own = np.unique(np.asarray(one[_evenly(len(one), 4 * LOOKED_AT)], dtype=np.float32), axis=0)
    far = np.sqrt(((own - own.mean(axis=0)) ** 2).sum(axis=1))
    keep = np.argsort(-far, kind="stable")[:LOOKED_AT]
    own, far = own[keep], far[keep]
    nearest = np.full(len(own), np.inf)
    for start in range(0, len(other), 8192):
        block = np.asarray(other[start : start + 8192], dtype=np.float32)
        squares = (own**2).sum(axis=1)[:, None] - 2 * own @ block.T + (block**2).sum(axis=1)
        nearest = np.minimum(nearest, np.sqrt(np.maximum(squares.min(axis=1), 0)))
    return float((nearest <= SAME_TILE * far + 1e-9).mean())


def shared_patients(sides: Mapping[str, Sequence[str]], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Patients who are in the test role and in another, with the roles; `sides` is slides by role."""
    roles: dict[str, list[str]] = {}
    for role, slides in sides.items():
        for patient in dict.fromkeys(patients[slide] for slide in slides):
            roles.setdefault(patient, []).append(role)
    return {patient: found for patient, found in roles.items() if "test" in found and len(found) > 1}


def _evenly(count: int, wanted: int) -> np.ndarray:
    """At most so many places, evenly over all."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))
