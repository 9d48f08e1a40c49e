"""Bag and model to picture: the scores behind a prediction, from the very bag and forward pass that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wsi_mil import files, tasks, training
from wsi_mil.bags import Bag, BagHeader
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.heatmaps import Heatmap, Limits, Shared, heatmap_to_hdf5, overlay, smoothed
from wsi_mil.stages import ledger
from wsi_mil.stages.explained import SIGNED, Explained, Method, check_same, explain
from wsi_mil.stages.exports import Export, Wanted, export_files, write_exports
from wsi_mil.stages.features import digests_of, header_of
from wsi_mil.stages.member_maps import member_map, member_map_inputs
from wsi_mil.stages.members import member_works
from wsi_mil.stages.predict import speaking_task
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.train import model_label
from wsi_mil.stages.trained import (
    TrainedModel,
    hashes,
    load,
    question,
    read_checked_bag,
    read_predictions,
    speakers,
    trained_models,
)
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import outline_from_geojson


class HeatmapStage(Stage):
    """Draw, for each slide, the scores behind its prediction."""

    name: ClassVar[str] = "heatmap"

    methods: tuple[Method, ...] = ("contribution", "attention", "alone", "novelty")
    """What is drawn of each tile; a method that the model has not is left out. contribution: what the tile adds, where
    the model tells it exactly; attention: how much the model looked at it, which is no explanation; alone: the answer
    on the tile as a bag of its own; novelty: how far its features are from those of the training tiles; occlusion: what
    is lost without it (as many passes as tiles); integrated_gradients, gradient_input; rollout (gashis, gtp, mil_vt,
    persam); graphcam (gtp)."""
    channel: Method = "contribution"
    """Which of the methods the picture shows. Attention takes the place of contributions that a model has not."""
    of: str = ""
    """Answer that is shown (a class, or another column of the predictions without its p_); empty takes the positive of
    two classes, of more the predicted one, and of other questions what raises the number, the grade or the risk."""
    scale: Literal["auto", "rank", "range", "signed"] = "auto"
    """How scores become colours; auto: signed for contributions, rank for attention and for several models."""
    alpha: float = Field(default=0.6, ge=0, le=1)
    """How much the colours cover the slide."""
    picture_px: int = Field(default=1400, ge=128)
    """Longer side of the slide in the picture."""
    smooth: float = Field(default=0.0, ge=0, le=20)
    """How far pictures, pyramids in colours and contours are smoothed: the standard deviation of a Gaussian in tiles,
    within each piece of tissue. Numbers are never smoothed."""
    export: tuple[Export, ...] = ("png", "geojson")
    """Files beside the raw scores (h5): png, geojson (tiles), contours (GeoJSON of the highest tiles), tiff (colours),
    ome_tiff (numbers), deepzoom, deepzoom_jpeg, csv, parquet, h5ad (needs the extra `anndata`)."""
    px_per_tile: int = Field(default=4, ge=1, le=256)
    """Pixels of a tile's side in tiff and ome_tiff, and at least as many in deepzoom."""
    contours: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.1,)
    """Shares of the tiles, the highest first, that a contour goes round: 0.1 is the highest tenth."""

    @model_validator(mode="after")
    def _shown_is_drawn(self) -> HeatmapStage:
        if self.channel not in self.methods:
            raise ValueError(
                f"channel is {self.channel!r}, which is not among the methods ({', '.join(self.methods)}); name one "
                "that is, or add it"
            )
        return self

    @property
    def after(self) -> tuple[str, ...]:
        """The predictions."""
        return ("predict",)

    def folder(self, work: Work) -> Path:
        """heatmap/<model>."""
        return work.root / self.name / model_label(work)

    def items(self, work: Work) -> list[Item]:
        """The slides."""
        return work.slide_items()

    def output(self, item: Item, work: Work) -> Path:
        """The folder of the slide's maps."""
        return self.folder(work) / item.name

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The bag, the models and the slide's rows of the predictions."""
        joint = bool(work.study.predict.members)
        one = next(iter(member_works(work).values())) if joint else work
        bag = ledger.require("extract", item.name, one)
        _check_drawable(item, header_of(bag))
        rows = self._rows(item, work)
        if joint:
            told = member_map_inputs(item.name, work)
        else:
            told = [*digests_of([bag], work.study.model.beside), *hashes(self._models(rows, item, work))]
        outline = ledger.require("tissue", item.name, work)
        return [*told, rows.to_csv(index=False), files.digest_file(outline)]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """One raw artefact a model, their mean rank where there are several, and the exports that were asked for."""
        rows = self._rows(item, work)
        if work.study.predict.members:
            shown, whole = member_map(item.name, rows, work)
            draft.mkdir()
            return {"models": len(rows), **self._write(shown, whole, speaking_task(work), item, work, draft)}
        bag = read_checked_bag(item.name, work)
        models, told = self._models(rows, item, work), []
        for model in models:
            one = explain(question(model, bag, work), self.methods)
            check_same([one], rows[rows["model"] == model.name].iloc[0], slide=item.name, of=model.name)
            told.append(one)
        told = _in_common(told)
        maps = [_heatmap(bag, one, model.name) for one, model in zip(told, models, strict=True)]
        whole = told[0].matrix() if len(told) == 1 else _mean_ranks([one.matrix() for one in told])
        shown = maps[0] if len(maps) == 1 else _mean_of(maps, whole[told[0].here])
        draft.mkdir()
        for own in maps if len(maps) > 1 else []:
            (draft / f"{item.name}.{own.model.replace('/', '-')}.h5").write_bytes(heatmap_to_hdf5(own))
        return {"models": len(maps), **self._write(shown, whole, load(models[0], work).task, item, work, draft)}

    def _write(
        self, shown: Heatmap, whole: NDArray[np.float32], task: tasks.Task, item: Item, work: Work, draft: Path
    ) -> dict[str, Any]:
        (draft / f"{item.name}.h5").write_bytes(heatmap_to_hdf5(shown))
        channel = self._channel(shown, task)
        wanted = Wanted(
            channel=channel,
            scale=self.scale_of(shown, channel),
            limits=_limits(shown, channel, whole),
            drawn=smoothed(shown, channel, tiles=self.smooth),
            px_per_tile=self.px_per_tile,
            top_shares=self.contours,
            picture=lambda: self.picture(item, work, wanted),
        )
        write_exports(export_files(shown, self.export, wanted), draft)
        return {"channel": channel, "tiles": len(shown.grid)}

    def _rows(self, item: Item, work: Work) -> pd.DataFrame:
        rows = read_predictions(work)
        rows = rows[rows["slide"] == item.name]
        if rows.empty:
            raise EmptyItem("no prediction: see the note in slides.csv")
        return rows

    def _models(self, rows: pd.DataFrame, item: Item, work: Work) -> list[TrainedModel]:
        told = set(rows["model"])
        return [model for model in speakers(trained_models(work), work)[item.name] if model.name in told]

    def _channel(self, shown: Heatmap, task: tasks.Task) -> str:
        """Name of the channel in the picture; the attention where the model tells no contributions."""
        classes = list(shown.prediction)
        of = self.of or task.shown(np.array(list(shown.prediction.values())))
        if of not in classes:
            raise StageError(f"heatmap.of is {of!r}, which is no answer of the model: {', '.join(classes)}")
        own = [self.channel, *("attention" for _ in self.methods if self.channel == "contribution")]
        for name in own:
            found = [one for one in shown.channels if one in (name, f"{name}_{of}")]
            found += [one for one in shown.channels if one.startswith(f"{name}_") and name in ("attention", "rollout")]
            if found:
                return found[0]
        raise StageError(
            f"heatmap.channel is {self.channel!r}, which {shown.model} has not; it has {', '.join(shown.channels)}"
        )

    def scale_of(self, shown: Heatmap, channel: str) -> str:
        """The scale by its name; for "auto" what suits the kind of numbers."""
        if self.scale != "auto":
            return self.scale
        kind = shown.kinds.get(channel)
        return "range" if kind == "mean rank" else "signed" if kind in SIGNED else "rank"

    def picture(self, item: Item, work: Work, wanted: Wanted) -> bytes:
        """The PNG of a slide, for which it is read."""
        outline_path = ledger.require("tissue", item.name, work)
        outline = outline_from_geojson(outline_path.read_text(encoding="utf-8"), where=outline_path.name)
        with open_item(item) as slide:
            rgb, downsample = slide.overview(max_px=self.picture_px, patch=True)
        return overlay(
            rgb,
            downsample,
            wanted.drawn,
            wanted.channel,
            scale=wanted.scale,
            limits=wanted.limits,
            alpha=self.alpha,
            outline=outline if self._cut(work) else None,
        )

    def _cut(self, work: Work) -> bool:
        return work.study.tissue.method != "none"


def _check_drawable(item: Item, header: BagHeader) -> None:
    """Raise EmptyItem where there is nothing to draw on, or nobody knows where."""
    if not header.placed:
        raise EmptyItem("its bag was imported without coordinates: it is predicted, but has no map")
    if not all(header.slide.mpp):
        raise EmptyItem("its bag was imported without a scale: import it again with the slide or a table of mpp")
    if not item.path:
        raise EmptyItem("there is no slide to draw on (cohort.slides is none)")


def _in_common(told: Sequence[Explained]) -> list[Explained]:
    """The channels that all models have: models of several kinds are drawn by what all of them tell."""
    names = [name for name in told[0].columns if all(name in one.columns for one in told)]
    if not names:
        raise EmptyItem("its models tell nothing of the tiles that all of them tell: draw the maps of each by itself")
    return [
        replace(
            one, columns={name: one.columns[name] for name in names}, kinds={name: one.kinds[name] for name in names}
        )
        for one in told
    ]


def _heatmap(bag: Bag, told: Explained, model: str) -> Heatmap:
    """All that a model says of a bag's tiles, one column a channel; NaN where the tile could not be read."""
    scores = np.full((len(bag.grid), len(told.columns)), np.nan, np.float32)
    scores[bag.usable] = told.matrix()[told.here]
    said = told.answer
    prediction = {name: float(value) for name, value in zip(said.names, said.values, strict=True)}
    return Heatmap(
        bag.slide, bag.grid, scores, tuple(told.columns), model=model, prediction=prediction, kinds=told.kinds
    )


def _mean_ranks(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Several models' channels as one: the mean rank of each tile, since their raw scores share no scale."""
    columns = range(maps[0].shape[1])
    return np.stack([training.mean_rank([one[:, column] for one in maps]) for column in columns], axis=1).astype("f4")


def _mean_of(maps: Sequence[Heatmap], ranks: NDArray[np.float32]) -> Heatmap:
    """The mean ranks as a map, with the mean prediction."""
    first = maps[0]
    scores = np.full_like(first.scores, np.nan)
    scores[np.isfinite(first.scores).all(axis=1)] = ranks
    prediction = {name: float(np.mean([one.prediction[name] for one in maps])) for name in first.prediction}
    return Heatmap(
        first.slide,
        first.grid,
        scores,
        first.channels,
        model=f"mean rank of {len(maps)} models",
        prediction=prediction,
        kinds=dict.fromkeys(first.channels, "mean rank"),
    )


def _limits(shown: Heatmap, channel: str, whole: NDArray[np.float32]) -> Limits:
    """One scale for all slides of a patient that were read as one bag."""
    known = int(np.isfinite(shown.scores).all(axis=1).sum())
    if len(whole) == known:
        return None
    return Shared(whole[:, shown.channels.index(channel)], "this patient's slides")
