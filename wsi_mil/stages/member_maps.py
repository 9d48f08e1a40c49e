"""The map of an ensemble: the weighted mean of its members' ranks of the tiles, by what each tile contributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import training
from wsi_mil.bags import Bag
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.heatmaps import Heatmap
from wsi_mil.stages import ledger
from wsi_mil.stages.explained import Explained, explain
from wsi_mil.stages.features import digests_of
from wsi_mil.stages.members import joined, member_works
from wsi_mil.stages.trained import TrainedModel, hashes, question, read_checked_bag, speakers, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

SAME_PREDICTION = 1e-6
"""Largest difference between the prediction in the table and the one behind the map."""


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
    rows = rows.set_index("model")
    ranks: list[NDArray[np.float64]] = []
    shares: list[float] = []
    names: list[str] = []
    silent: list[str] = []
    first: tuple[Bag, Explained] | None = None
    for label, one in member_works(work).items():
        bag = read_checked_bag(slide, one)
        told = [explain(question(model, bag, one), ("contribution",)) for model in _able(slide, one)]
        _check_same(told, rows.loc[label], slide, label)
        columns = [name for name, kind in told[0].kinds.items() if kind == "contribution"]
        columns = [name for name in columns if name.removeprefix("contribution_") in told[0].answer.names]
        if not columns:
            silent.append(label)
            continue
        first = first or (bag, told[0])
        _check_tiles(first, (bag, told[0]), slide, label)
        mean = [training.mean_rank([each.columns[name] for each in told]) for name in columns]
        ranks.append(np.stack(mean, axis=1))
        shares.append(float(rows.loc[label, "weight"]))
        names.append(label)
    if first is None:
        raise EmptyItem(f"no member tells what a tile contributes ({', '.join(silent)}): draw the maps of the members")
    # members of weight 0 alone leave nothing to weigh by
    weights = np.array(shares) / sum(shares) if sum(shares) else np.full(len(shares), 1 / len(shares))
    whole = np.tensordot(weights, np.stack(ranks), axes=1).astype(np.float32)
    bag, said = first
    scores = np.full((len(bag.grid), whole.shape[1]), np.nan, np.float32)
    scores[bag.usable] = whole[said.here]
    parts = [f"{name} ({weight:.2f})" for name, weight in zip(names, weights, strict=True)]
    without = f", without {', '.join(silent)}, which tells no contributions" if silent else ""
    both = joined(rows.reset_index()).iloc[0]
    channels = tuple(f"contribution_{name}" for name in said.answer.names)
    shown = Heatmap(
        bag.slide,
        bag.grid,
        scores,
        channels,
        model=f"weighted mean rank of {', '.join(parts)}{without}",
        prediction={name: float(both[f"p_{name}"]) for name in said.answer.names},
        kinds=dict.fromkeys(channels, "mean rank"),
    )
    return shown, whole


def _able(slide: str, work: Work) -> list[TrainedModel]:
    return speakers(trained_models(work), work)[slide]


def _check_same(told: list[Explained], row: pd.Series, slide: str, label: str) -> None:
    names = told[0].answer.names
    means = np.mean([one.answer.values for one in told], axis=0)
    worst = float(np.abs(means - np.array([row[f"p_{name}"] for name in names], dtype=float)).max())
    if worst > SAME_PREDICTION:
        raise StageError(
            f"the map of slide {slide!r} would not belong to its prediction: member {label!r} now differs from the "
            f"table by {worst:.2g}; run predict again"
        )


def _check_tiles(first: tuple[Bag, Explained], other: tuple[Bag, Explained], slide: str, label: str) -> None:
    bags = first[0], other[0]
    counts = [len(next(iter(one.columns.values()))) for one in (first[1], other[1])]
    coords = [one.grid.coords_l0[one.usable] for one in bags]
    if counts[0] != counts[1] or not np.array_equal(*coords):
        raise StageError(
            f"the members read other tiles of slide {slide!r}: member {label!r} {counts[1]}, the first {counts[0]}, so "
            "that their maps cannot be joined; draw the maps of the members"
        )
