"""The map of an ensemble: the weighted mean of its members' ranks of the tiles, by what each tile contributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import training
from wsi_mil.bags import Bag
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.heatmaps import Heatmap
from wsi_mil.stages import ledger
from wsi_mil.stages.explained import check_same, explain
from wsi_mil.stages.features import digests_of
from wsi_mil.stages.members import joined, member_works
from wsi_mil.stages.trained import TrainedModel, hashes, question, read_checked_bag, speakers, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


def member_map_inputs(slide: str, work: Work) -> list[str]:
    """Digests of the bags and models behind a slide's map."""
    told = []
    for label, one in member_works(work).items():
        bag = ledger.require("extract", slide, one)
        told += [label, *digests_of([bag], one.study.model.beside), *hashes(_able(slide, one))]
    return told


def member_map(slide: str, rows: pd.DataFrame, work: Work) -> tuple[Heatmap, NDArray[np.float32]]:
    """The map of a slide, and the ranks of all tiles that were read with it [tile channel].

    Raw contributions of two models share no scale, so tiles are ranked: by each model of a member, averaged, and then
    over the members by their weights in `rows` (models.csv). A member that tells no contributions is left out, which
    the name of the map says. Raises EmptyItem where none tells them, StageError where members read other tiles or where
    the map would not belong to the prediction.
    """
    told = {str(row["model"]): row for _, row in rows.iterrows()}
    heard, silent = [], []
    for label, one in member_works(work).items():
        member = _ranked(slide, label, one, told[label])
        if member is None:
            silent.append(label)
        else:
            heard.append(member)
    if not heard:
        raise EmptyItem(f"no member tells what a tile contributes ({', '.join(silent)}): draw the maps of the members")
    for member in heard[1:]:
        _check_tiles(heard[0], member, slide)
    shares = np.array([float(told[member.label]["weight"]) for member in heard])
    # members of weight 0 alone leave nothing to weigh by
    weights = shares / shares.sum() if shares.sum() else np.full(len(shares), 1 / len(shares))
    whole = np.tensordot(weights, np.stack([member.ranks for member in heard]), axes=1).astype(np.float32)
    parts = [f"{member.label} ({weight:.2f})" for member, weight in zip(heard, weights, strict=True)]
    without = f", without {', '.join(silent)}, which tells no contributions" if silent else ""
    name = f"weighted mean rank of {', '.join(parts)}{without}"
    return _drawn(heard[0], whole, name, joined(rows).iloc[0]), whole


@dataclass(frozen=True)
class _Member:
    """What one member says of the tiles that it read."""

    label: str
    bag: Bag
    names: tuple[str, ...]
    ranks: NDArray[np.float64]
    """tile answer: mean over its models, 0 (lowest) to 1."""
    here: slice
    """Which of the tiles are those of the slide."""


def _ranked(slide: str, label: str, work: Work, row: pd.Series) -> _Member | None:
    """None where the member tells no contributions."""
    bag = read_checked_bag(slide, work)
    told = [explain(question(model, bag, work), ("contribution",)) for model in _able(slide, work)]
    check_same(told, row, slide=slide, of=f"member {label!r}")
    names = told[0].answer.names
    if any(f"contribution_{name}" not in told[0].columns for name in names):
        return None
    ranks = [training.mean_rank([each.columns[f"contribution_{name}"] for each in told]) for name in names]
    return _Member(label, bag, names, np.stack(ranks, axis=1), told[0].here)


def _drawn(first: _Member, whole: NDArray[np.float32], model: str, said: pd.Series) -> Heatmap:
    """The ranks of the slide's own tiles as a map, with the prediction of the ensemble."""
    scores = np.full((len(first.bag.grid), whole.shape[1]), np.nan, np.float32)
    scores[first.bag.usable] = whole[first.here]
    channels = tuple(f"contribution_{name}" for name in first.names)
    prediction = {name: float(said[f"p_{name}"]) for name in first.names}
    kinds = dict.fromkeys(channels, "mean rank")
    return Heatmap(first.bag.slide, first.bag.grid, scores, channels, model=model, prediction=prediction, kinds=kinds)


def _able(slide: str, work: Work) -> list[TrainedModel]:
    return speakers(trained_models(work), work)[slide]


def _check_tiles(first: _Member, other: _Member, slide: str) -> None:
    coords = [one.bag.grid.coords_l0[one.bag.usable] for one in (first, other)]
    if len(first.ranks) != len(other.ranks) or not np.array_equal(*coords):
        raise StageError(
            f"the members read other tiles of slide {slide!r}: {other.label!r} {len(other.ranks)}, {first.label!r} "
            f"{len(first.ranks)}, so that their maps cannot be joined; draw the maps of the members"
        )
