"""Bag and model to picture: the scores behind a prediction, from the very bag and forward pass that made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from wsi_mil import files, tasks, training
from wsi_mil.bags import Bag, BagHeader
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.heatmaps import Heatmap, heatmap_to_hdf5, overlay
from wsi_mil.stages import ledger
from wsi_mil.stages.exports import Export, Wanted, export_files, write_exports
from wsi_mil.stages.features import digests_of, header_of
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.train import model_label
from wsi_mil.stages.trained import (
    Answer,
    TrainedModel,
    answer,
    hashes,
    load,
    read_checked_bag,
    read_predictions,
    speakers,
    trained_models,
)
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import outline_from_geojson

SAME_PREDICTION = 1e-6
"""Largest difference between the prediction in the table and the one behind the map."""


class HeatmapStage(Stage):
    """Draw, for each slide, the scores behind its prediction."""

    name: ClassVar[str] = "heatmap"

    channel: Literal["contribution", "attention"] = "contribution"
    """What the picture shows. contribution: what each tile adds to the class, where the model tells it exactly;
    attention: how much the model looked at it, which is no explanation."""
    of: str = ""
    """Answer that is shown (a class, or another column of the predictions without its p_); empty takes the positive of
    two classes, of more the predicted one, and of other questions what raises the number, the grade or the risk."""
    scale: Literal["auto", "rank", "range", "signed"] = "auto"
    """How scores become colours; auto: signed for contributions, rank for attention and for several models."""
    alpha: float = Field(default=0.6, ge=0, le=1)
    """How much the colours cover the slide."""
    picture_px: int = Field(default=1400, ge=128)
    """Longer side of the slide in the picture."""
    export: tuple[Export, ...] = ("png", "geojson")
    """Files beside the raw scores (h5): png, geojson (tiles), contours (GeoJSON of the highest tiles), tiff (colours),
    ome_tiff (numbers), deepzoom, deepzoom_jpeg, csv, parquet, h5ad (needs the extra `anndata`)."""
    px_per_tile: int = Field(default=4, ge=1, le=256)
    """Pixels of a tile's side in tiff and ome_tiff, and at least as many in deepzoom."""
    contours: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.1,)
    """Shares of the tiles, the highest first, that a contour goes round: 0.1 is the highest tenth."""

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
        bag = ledger.require("extract", item.name, work)
        _check_drawable(item, header_of(bag))
        rows = self._rows(item, work)
        models = self._models(rows, item, work)
        outline = ledger.require("tissue", item.name, work)
        return [
            *digests_of([bag], work.study.model.beside),
            *hashes(models),
            rows.to_csv(index=False),
            files.digest_file(outline),
        ]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """One raw artefact a model, their mean rank where there are several, and the exports that were asked for."""
        bag, rows = read_checked_bag(item.name, work), self._rows(item, work)
        maps, models = [], self._models(rows, item, work)
        for model in models:
            said = answer(model, bag, work)
            self._check_same(said, rows[rows["model"] == model.name].iloc[0], item, model)
            maps.append(_heatmap(bag, said, model.name))
        shown = maps[0] if len(maps) == 1 else _mean_of(maps)
        draft.mkdir()
        for one in maps if len(maps) > 1 else []:
            (draft / f"{item.name}.{one.model.replace('/', '-')}.h5").write_bytes(heatmap_to_hdf5(one))
        (draft / f"{item.name}.h5").write_bytes(heatmap_to_hdf5(shown))
        channel = self._channel(shown, load(models[0], work).task)
        scale = self._scale(shown, channel)
        wanted = Wanted(
            channel, scale, self.px_per_tile, self.contours, lambda: self._picture(item, work, shown, channel, scale)
        )
        write_exports(export_files(shown, self.export, wanted), draft)
        return {"models": len(maps), "channel": channel, "tiles": len(shown.grid)}

    def _rows(self, item: Item, work: Work) -> pd.DataFrame:
        rows = read_predictions(work)
        rows = rows[rows["slide"] == item.name]
        if rows.empty:
            raise EmptyItem("no prediction: see the note in slides.csv")
        return rows

    def _models(self, rows: pd.DataFrame, item: Item, work: Work) -> list[TrainedModel]:
        told = set(rows["model"])
        return [model for model in speakers(trained_models(work), work)[item.name] if model.name in told]

    def _check_same(self, said: Answer, row: pd.Series, item: Item, model: TrainedModel) -> None:
        table = np.array([row[f"p_{name}"] for name in said.names], dtype=float)
        worst = float(np.abs(table - said.values).max())
        if worst > SAME_PREDICTION:
            raise StageError(
                f"the map of slide {item.name!r} would not belong to its prediction: {model.name} now differs from the "
                f"table by {worst:.2g}; run predict again"
            )

    def _channel(self, shown: Heatmap, task: tasks.Task) -> str:
        """Name of the channel in the picture; the attention where the model tells no contributions."""
        classes = list(shown.prediction)
        of = self.of or task.shown(np.array(list(shown.prediction.values())))
        if of not in classes:
            raise StageError(f"heatmap.of is {of!r}, which is no answer of the model: {', '.join(classes)}")
        wanted = f"contribution_{of}"
        if self.channel == "contribution" and wanted in shown.channels:
            return wanted
        return next(name for name in shown.channels if name.startswith("attention"))

    def _scale(self, shown: Heatmap, channel: str) -> str:
        if self.scale != "auto":
            return self.scale
        several = shown.kinds.get(channel) == "mean rank"
        return "range" if several else "signed" if channel.startswith("contribution") else "rank"

    def _picture(self, item: Item, work: Work, shown: Heatmap, channel: str, scale: str) -> bytes:
        outline_path = ledger.require("tissue", item.name, work)
        outline = outline_from_geojson(outline_path.read_text(encoding="utf-8"), where=outline_path.name)
        with open_item(item) as slide:
            rgb, downsample = slide.overview(max_px=self.picture_px, patch=True)
        return overlay(
            rgb, downsample, shown, channel, scale=scale, alpha=self.alpha, outline=outline if self._cut(work) else None
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


def _heatmap(bag: Bag, said: Answer, model: str) -> Heatmap:
    """All that a model says of a bag's tiles, one column a channel; NaN where the tile could not be read."""
    told = said.inference
    single = len(told.queries) == 1
    columns: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for number, query in enumerate(told.queries):
        name = "attention_logit" if single else f"attention_logit_{query}"
        columns[name], kinds[name] = told.scores[:, number], "raw score"
        if told.attention is not None:
            name = "attention" if single else f"attention_{query}"
            columns[name], kinds[name] = told.attention[:, number], "attention"
    if said.tiles is not None:
        for number, answer_name in enumerate(said.names):
            name = f"contribution_{answer_name}"
            columns[name], kinds[name] = said.tiles[:, number], "contribution"
    scores = np.full((len(bag.grid), len(columns)), np.nan, np.float32)
    scores[bag.usable] = np.stack(list(columns.values()), axis=1).astype(np.float32)
    prediction = {name: float(value) for name, value in zip(said.names, said.values, strict=True)}
    return Heatmap(bag.slide, bag.grid, scores, tuple(columns), model=model, prediction=prediction, kinds=kinds)


def _mean_of(maps: Sequence[Heatmap]) -> Heatmap:
    """Several models' maps as one: the mean rank of each tile, since their raw scores share no scale."""
    first = maps[0]
    known = np.isfinite(first.scores).all(axis=1)
    scores = np.full_like(first.scores, np.nan)
    for column in range(len(first.channels)):
        scores[known, column] = training.mean_rank([one.scores[known, column] for one in maps])
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
