"""How unknown a slide looks to a trained model: scores fitted on the fit role, higher for the less known.

Scores of the bag notice that what is familiar is absent, scores of tiles that something is new (the Familiarity
Hypothesis, Dietterich and Guyer, 2022); "combo" has both. All arithmetic is in float32 or better.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from wsi_mil.errors import ModelError, unknown
from wsi_mil.training.outliers import HEADS, conic_scores, dense_scores, deviation_score, fit_head

BANK = 2048
"""Tiles of the fit role that a tile is compared with, drawn from all slides alike."""

NEIGHBOURS_BAG, NEIGHBOURS_TILE = 5, 5

TOP = 0.1
"""Share of a slide's tiles, those that look newest, whose mean is the slide's score."""

FEWEST_A_CLASS = 10
"""Slides of each class below which Mahalanobis' distance is taken among as many principal components as can be told."""

BLOCK = 1024

FORMAT = 1


@dataclass(frozen=True)
class Said:
    """What a model made of one bag."""

    logits: Float32[np.ndarray, "out"]
    embedding: Float32[np.ndarray, "part"]
    tiles: Float32[np.ndarray, "tile dim"]
    """Standardised features of all tiles that the model read."""


@dataclass(frozen=True)
class Kind:
    """One way to tell how unknown a slide looks."""

    told: str
    tiles: bool = False
    """It looks at tiles, which then must be kept."""
    fitted: bool = False
    negatives: bool = False
    """It learns from bags that are known to be of no class."""


KINDS: dict[str, Kind] = {
    "msp": Kind("1 - highest probability"),
    "maxlogit": Kind("- highest logit"),
    "energy": Kind("- log of the sum of exp(logit)"),
    "norm": Kind("- length of the bag's embedding"),
    "maha": Kind("Mahalanobis distance of the embedding from the nearest class mean", fitted=True),
    "knn": Kind("distance of the embedding, at length 1, to its 5th neighbour among training slides", fitted=True),
    "epcc": Kind("- highest polyhedral conic function of the embedding", fitted=True),
    "inst_topk": Kind("mean novelty of the newest tenth of the tiles", tiles=True, fitted=True),
    "combo": Kind("the higher of maxlogit and inst_topk, each in spreads of known slides", tiles=True, fitted=True),
    "hybrid": Kind(
        "ln p(out) - log of the sum of exp(logit), of the newest tenth", tiles=True, fitted=True, negatives=True
    ),
    "deviation": Kind("- normality + seen + pseudo + residual head", tiles=True, fitted=True, negatives=True),
}

COMBINED = ("maxlogit", "inst_topk")


@dataclass(frozen=True)
class Novelty:
    """A fitted score."""

    name: str
    arrays: dict[str, NDArray[Any]]
    """What was learnt from the fit role; empty for scores of the logits alone."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The scores that it is joined from; of all but one its own name."""
        return COMBINED if self.name == "combo" else (self.name,)

    def of(self, said: Said) -> Float[np.ndarray, "part"]:
        """Score of one bag, part by part."""
        return np.array([_SCORES[name](said, self.arrays) for name in self.parts], dtype=np.float64)

    def to_bytes(self) -> bytes:
        """As safetensors; the same score gives the same bytes."""
        # One key: the library writes several in any order.
        about = {"score": f"{FORMAT} {self.name}"}
        return save_arrays({name: np.ascontiguousarray(one) for name, one in self.arrays.items()}, metadata=about)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Novelty:
        """Back from `to_bytes`; ModelError for what it did not write."""
        try:
            size = int.from_bytes(data[:8], "little")
            told = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get("score", "")
            made, _, name = told.partition(" ")
            if made != str(FORMAT) or name not in KINDS:
                raise ModelError(f"{where} is no fitted score of unknown slides: run `wsi-mil calibrate` again")
            return cls(name, load_arrays(data))
        except (SafetensorError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{where} is cut off or no safetensors ({error}): run `wsi-mil calibrate` again"
            ) from error


def fit_novelty(
    name: str,
    bags: Sequence[Said],
    truth: Int[np.ndarray, "bag"],
    *,
    seed: int = 0,
    negatives: Sequence[NDArray[np.float32]] = (),
) -> Novelty:
    """Fit a score on what a model says of the slides it was trained on; `truth` has their classes.

    `negatives` are the standardised tiles [tile dim] of bags of no class (another organ, pen, folds), for scores that
    learn from such. Of `bags` that look at no tile, `tiles` may be cut down (`sampled_tiles`).
    ModelError for an unknown name, no bags, or a score without the negatives it needs.
    """
    if name not in KINDS:
        raise ModelError(unknown("score of unknown slides", name, KINDS))
    if not bags:
        raise ModelError(f"no training slide is at hand to fit {name!r} on")
    if KINDS[name].negatives and not negatives:
        raise ModelError(
            f"{name!r} learns from tiles of no class (another organ, pen, folds): give calibrate.negatives"
        )
    embeddings = np.stack([one.embedding for one in bags]).astype(np.float64)
    if name == "maha":
        return Novelty(name, _gaussian(embeddings, truth))
    if name == "knn":
        return Novelty(name, {"bank": _unit(embeddings).astype(np.float32)})
    if name in ("inst_topk", "combo"):
        return Novelty(name, {"bank": _bank(bags, seed)})
    if name in HEADS:
        return Novelty(name, fit_head(name, [one.tiles for one in bags], embeddings, truth, negatives, seed=seed))
    return Novelty(name, {})


def sampled_tiles(tiles: Float32[np.ndarray, "tile dim"], bags: int, seed: int) -> Float32[np.ndarray, "some dim"]:
    """As many tiles of one of `bags` slides as a bank, or the training of a head, may need."""
    most = max(256, -(-BANK // max(bags, 1)))
    if len(tiles) <= most:
        return tiles
    return tiles[np.sort(np.random.default_rng(seed).choice(len(tiles), most, replace=False))]


def top_mean(values: Float[np.ndarray, "tile"], share: float = TOP) -> float:
    """Mean of the highest `share` of the values, of one at least."""
    count = max(1, round(share * len(values)))
    return float(np.partition(values, len(values) - count)[-count:].mean())


def tile_novelty(
    tiles: Float32[np.ndarray, "tile dim"], bank: Float32[np.ndarray, "known dim"], k: int = NEIGHBOURS_TILE
) -> Float32[np.ndarray, "tile"]:
    """Distance of each tile to its k-th nearest in the bank. All tiles count, also those without attention."""
    k, lengths, found = min(k, len(bank)), (bank**2).sum(axis=1), []
    for first in range(0, len(tiles), BLOCK):
        part = tiles[first : first + BLOCK]
        squares = (part**2).sum(axis=1)[:, None] + lengths - 2 * part @ bank.T
        found.append(np.sqrt(np.maximum(np.partition(squares, k - 1, axis=1)[:, k - 1], 0)))
    return np.concatenate(found)


def _log_sum_exp(logits: NDArray[Any]) -> float:
    values = logits.astype(np.float64)
    return float(values.max() + np.log(np.exp(values - values.max()).sum()))


def _gaussian(embeddings: Float[np.ndarray, "bag part"], truth: Int[np.ndarray, "bag"]) -> dict[str, NDArray[Any]]:
    """Class means and the inverse of one covariance of all, shrunk after Ledoit and Wolf."""
    from sklearn.covariance import LedoitWolf

    centre = embeddings.mean(axis=0)
    axes = np.eye(embeddings.shape[1])
    if np.bincount(truth)[np.unique(truth)].min() < FEWEST_A_CLASS:
        turned = np.linalg.svd(embeddings - centre, full_matrices=False)[2]
        axes = turned[: max(1, min(len(embeddings) // 2, len(turned)))].T
    low = (embeddings - centre) @ axes
    means = np.stack([low[truth == number].mean(axis=0) for number in np.unique(truth)])
    residual = low - means[np.searchsorted(np.unique(truth), truth)]
    precision = LedoitWolf(assume_centered=True).fit(residual).precision_
    return {"centre": centre, "axes": axes, "means": means, "precision": precision}


def _mahalanobis(said: Said, arrays: dict[str, NDArray[Any]]) -> float:
    away = (said.embedding - arrays["centre"]) @ arrays["axes"] - arrays["means"]
    return float(np.einsum("ci,ij,cj->c", away, arrays["precision"], away).min())


def _neighbour(said: Said, arrays: dict[str, NDArray[Any]]) -> float:
    away = np.linalg.norm(arrays["bank"] - _unit(said.embedding[None].astype(np.float64)), axis=1)
    k = min(NEIGHBOURS_BAG, len(away))
    return float(np.partition(away, k - 1)[k - 1])


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _bank(bags: Sequence[Said], seed: int) -> Float32[np.ndarray, "known dim"]:
    random, each = np.random.default_rng(seed), -(-BANK // len(bags))
    drawn = [one.tiles[random.permutation(len(one.tiles))[:each]] for one in bags]
    return np.concatenate(drawn).astype(np.float32)


_SCORES: dict[str, Callable[[Said, dict[str, NDArray[Any]]], float]] = {
    "msp": lambda said, _: 1 - float(np.exp(float(said.logits.max()) - _log_sum_exp(said.logits))),
    "maxlogit": lambda said, _: -float(said.logits.max()),
    "energy": lambda said, _: -_log_sum_exp(said.logits),
    "norm": lambda said, _: -float(np.linalg.norm(said.embedding.astype(np.float64))),
    "maha": _mahalanobis,
    "knn": _neighbour,
    "epcc": lambda said, arrays: -float(conic_scores(said.embedding[None], arrays).max()),
    "inst_topk": lambda said, arrays: top_mean(tile_novelty(said.tiles, arrays["bank"])),
    "hybrid": lambda said, arrays: top_mean(dense_scores(said.tiles, arrays)),
    "deviation": lambda said, arrays: deviation_score(said.tiles, arrays),
}
