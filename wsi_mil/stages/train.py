"""Bags and folds to models: one checkpoint for each seed, repeat and fold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from wsi_mil import encoders, files, models, training
from wsi_mil.cohort import ClinicalEncoder
from wsi_mil.config import StudyPath
from wsi_mil.errors import BagError, StageError
from wsi_mil.layout import folder_name
from wsi_mil.stages import ledger, question
from wsi_mil.stages.audit import audit_fold, audit_key, marks_of, read_by
from wsi_mil.stages.features import BagFiles, bags_of, digests_of, header_of, one_contract
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.tracking import tracked
from wsi_mil.stages.units import UnitBags, region_of, units_of

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

STUDY_JSON = "study.json"
"""Beside each checkpoint: how tissue, tiles and features of new slides must be made to be read by it."""


class Train(Stage):
    """Train one model for each fold and seed."""

    name: ClassVar[str] = "train"
    reads: ClassVar[tuple[str, ...]] = ("task", "model")

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """One model a fold for each; several show how much of a result is luck."""
    epochs: int = Field(default=50, ge=1)
    """Passes over the training slides, at most."""
    patience: int = Field(default=15, ge=0)
    """Epochs without a lower loss on the select role before training stops; 0 never stops early."""
    lr: float | None = Field(default=None, gt=0, lt=1)
    """Learning rate of AdamW at its highest; empty takes what the model needs (docs/models.md), mostly 1e-4."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises; it then falls as a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of AdamW."""
    batch_bags: int | None = Field(default=None, ge=1)
    """Slides in a step; empty takes what the model needs, mostly 1."""
    tiles_per_bag: int = Field(default=0, ge=0)
    """Tiles drawn anew from each slide in each epoch; 0 takes all. Selection and prediction always read all."""
    clip: float = Field(default=5.0, ge=0)
    """Largest norm of a gradient; 0 for no limit."""
    standardise: bool = True
    """Bring each feature to mean 0 and spread 1 over the tiles of the fit role."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay a step of a running mean of the weights, which is then validated and kept; 0 for none, .99 suits most."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass."""
    encoder_saw: StudyPath | None = None
    """Slides or patients that the encoder was pretrained on: CSV with a column slide (names of files will do) or
    patient. Training fails where one of them is to be tested; of TCGA, where another slide of the patient is."""

    @property
    def after(self) -> tuple[str, ...]:
        """The bags and the folds."""
        return ("extract", "split")

    def folder(self, work: Work) -> Path:
        """train/<model>."""
        return work.root / self.name / model_label(work)

    def items(self, work: Work) -> list[Item]:
        """Every seed, repeat and fold."""
        pairs = read_folds(work)[["repeat", "fold"]].drop_duplicates().itertuples(index=False)
        places = [(int(repeat), int(fold)) for repeat, fold in pairs]
        several = len({repeat for repeat, _ in places}) > 1
        return [
            Item(f"seed-{seed}/{f'repeat-{repeat}-' if several else ''}fold-{fold}", fold=(seed, repeat, fold))
            for seed in self.seeds
            for repeat, fold in places
        ]

    def output(self, item: Item, work: Work) -> Path:
        """The folder of the checkpoint."""
        return self.folder(work) / item.name

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """Roles, labels and bags of the slides that the fold learns from: nothing of its test slides."""
        roles = _roles(item, work)
        learnt = [slide for role in ("fit", "select") for slide in roles[role]]
        paths, _ = bags_of(work, learnt)
        labels = question.cells(work.study.task, work.cohort.frame)
        told = [f"{role}:{slide}:{labels[slide]}" for role in ("fit", "select") for slide in roles[role]]
        record = _told_record(work, learnt)
        digests = digests_of(paths.values(), work.study.model.beside)
        saw = [files.digest_file(self.encoder_saw)] if self.encoder_saw else []
        return [*told, *digests, *([record] if record else []), *saw]

    def recheck(self, item: Item, work: Work, facts: Mapping[str, Any]) -> None:
        """Audit a checkpoint again where the slides of the fold, tested ones too, are not as they were."""
        roles = _roles(item, work)
        if facts.get("audit", {}).get("key") != audit_key(roles, work):
            audit_fold(roles, work)

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Fit on one role, choose the epoch on another; the test slides are not handed over at all."""
        with tracked(self, item, work) as run:
            facts = self._train(item, work, draft, run.telling(lambda epoch: tick(epoch, self.epochs)))
            run.ended("made", {name: one for name, one in facts.items() if name != "audit"})
        return facts

    def _train(self, item: Item, work: Work, draft: Path, progress: training.Progress) -> dict[str, Any]:
        assert item.fold is not None
        seed, repeat, fold = item.fold
        roles = _roles(item, work)
        paths, lacking = bags_of(work, [*roles["fit"], *roles["select"]])
        audit = audit_fold(roles, work)
        units = units_of(work, list(paths))
        firsts = [unit[0] for unit in units]  # of several slides in a bag the first stands for the patient
        fitting = [slide for slide in roles["fit"] if slide in firsts]
        contract = one_contract(paths, work.study.model.beside).encoder
        _check_placed(paths, work.study.model.name)
        task = question.fitted_task(work, fitting)
        clinical, records = _records(work, firsts, fitting)
        model = _model(work, dim=contract.width, n_out=task.n_out, clinical=clinical, seed=seed)
        settings = self.settings(_recipe(model.recipe, task.recipe))
        source = _source(paths, units, work)
        fit_index, select_index = (_places(roles[role], firsts) for role in ("fit", "select"))
        targets = task.target(question.labels_of(work), firsts)
        fitted = training.fit(
            model,
            source,
            fit_index=fit_index,
            select_index=select_index,
            targets=targets,
            task=task,
            settings=settings,
            seed=seed,
            records=records,
            **self._how(item, work),
            names=[f"slide{'s' if len(unit) > 1 else ''} {', '.join(map(repr, unit))}" for unit in units],
            progress=progress,
        )
        task = training.settled(task, model, source, index=fit_index, targets=targets, records=records)
        chosen = (fitted.epoch, fitted.chosen_by, vars(settings))
        told = {**read_by(fitted, units, clinical), **marks_of(paths, work)}
        how = training.Training(tuple(paths), seed, repeat, fold, *chosen, **told)
        draft.mkdir()
        training.save_checkpoint(draft, model=model, task=task, contract=contract, training=how, clinical=clinical)
        _write_beside(draft, fitted.history, work)
        facts = {"epoch": fitted.epoch, "epochs": len(fitted.history), "audit": audit}
        return {**facts, "fit": len(fit_index), "select": len(select_index), "left_out": len(lacking)}

    def _how(self, item: Item, work: Work) -> dict[str, Any]:
        """Where it is computed, and what a run that is killed leaves behind: nothing of it changes the outcome."""
        runtime = work.study.runtime
        left = self.folder(work) / ".resume" / f"{item.name.replace('/', '-')}.safetensors"
        key = ledger.inputs_digest(self, item, work)
        snapshot = training.Snapshot(left, key=key, every_s=runtime.snapshot_s) if runtime.snapshot_s else None
        return {
            "device": encoders.choose_device(runtime.device),
            "device_budget_bytes": runtime.device_bags_mb << 20,
            "snapshot": snapshot,
        }

    def settings(self, recipe: Mapping[str, float]) -> training.FitSettings:
        """The fields of this stage that the fit takes; what is left empty is the model's own, or else the default."""
        told = {field.name: getattr(self, field.name) for field in fields(training.FitSettings)}
        return training.FitSettings(**{**recipe, **{name: one for name, one in told.items() if one is not None}})


def _source(paths: Mapping[str, Path], units: Sequence[Sequence[str]], work: Work) -> training.BagSource:
    """The bags by number, kept in memory as far as the budget goes."""
    bags, slides = BagFiles(list(paths.values()), beside=work.study.model.beside), list(paths)
    joined = UnitBags(bags, [_places(unit, slides) for unit in units], region=region_of(work))
    return training.Cached(joined, budget_bytes=work.study.runtime.bag_budget_mb << 20)


def _recipe(method: Mapping[str, float], task: Mapping[str, float]) -> dict[str, float]:
    """What is trained with where the study says nothing: the more that the method or the loss needs."""
    names = [*method, *(name for name in task if name not in method)]
    return {name: max(told[name] for told in (method, task) if name in told) for name in names}


def _places(slides: Sequence[str], learnt: Sequence[str]) -> list[int]:
    """Numbers of those slides that have a bag."""
    number = {slide: place for place, slide in enumerate(learnt)}
    return [number[slide] for slide in slides if slide in number]


def _write_beside(draft: Path, history: list[dict[str, float]], work: Work) -> None:
    files.write_json(draft / STUDY_JSON, ledger.portable(work.study))
    pd.DataFrame(history).to_csv(draft / "history.csv", index=False)


def _model(work: Work, *, dim: int, n_out: int, clinical: ClinicalEncoder | None, seed: int) -> models.MIL:
    section = work.study.model
    sizes = clinical.sizes if clinical else ()
    options = {**_regions(work), **section.options}
    return models.build_model(
        section.name, dim=dim, n_out=n_out, factors=sizes, fusion=section.fusion, seed=seed, **options
    )


def _records(
    work: Work, learnt: Sequence[str], fitting: Sequence[str]
) -> tuple[ClinicalEncoder | None, models.Clinical | None]:
    """The encoder of the clinical record, fitted on the fit role, and the record of every slide that is learnt from."""
    import torch

    if not work.study.cohort.clinical:
        return None, None
    encoder = ClinicalEncoder.of(work.study.cohort.clinical).fit(work.rows_of(fitting))
    record = encoder.encode(work.rows_of(learnt))
    return encoder, models.Clinical(torch.from_numpy(record.values), torch.from_numpy(record.missing))


def _regions(work: Work) -> dict[str, int]:
    """For methods of two scales: how many tiles lie along one of the coarser. StageError where there are not two."""
    tile, method = work.study.tile, models.MODELS.get(work.study.model.name)
    if method is None or "region" not in inspect.signature(method).parameters:
        return {}
    if len(tile.coarser) != 1:
        raise StageError(
            f"model {work.study.model.name!r} reads tiles at two scales, and there are {1 + len(tile.coarser)}: set "
            "tile.mpp to both, such as [0.5, 2.0]"
        )
    return {"region": region_of(work)}


def _told_record(work: Work, slides: Sequence[str]) -> str:
    """Digest of what the table tells of the patients of some slides; nothing where no factor is asked for."""
    factors = ClinicalEncoder.of(work.study.cohort.clinical).factors
    columns = [column for factor in factors for column in factor.columns]
    if not columns:
        return ""
    return files.digest(repr(factors), work.rows_of(slides)[columns].to_csv(index=False))


def _check_placed(paths: dict[str, Path], model: str) -> None:
    """Refuse bags without coordinates to a model that reads them."""
    spatial = getattr(models.MODELS.get(model), "spatial", False)
    lacking = [slide for slide, path in paths.items() if not header_of(path).placed] if spatial is not False else []
    if lacking:
        raise BagError(
            f"model {model!r} reads the places of tiles, but {len(lacking)} bag(s) were imported without them (first "
            f"{lacking[0]!r}): take a model that does not, such as abmil (see `wsi-mil models`)"
        )


def model_label(work: Work) -> str:
    """Folder of the study's model under train/, predict/ and heatmap/."""
    return folder_name(work.study.model.label or work.study.model.name)


def read_folds(work: Work) -> pd.DataFrame:
    """folds.csv, as made or as edited. Raises StageError where it is not there yet."""
    path = ledger.require("split", "folds", work)
    kinds = {"slide": str, "patient": str, "role": str}
    return pd.read_csv(path, dtype=kinds, keep_default_na=False)


def _roles(item: Item, work: Work) -> dict[str, list[str]]:
    assert item.fold is not None
    return roles_of(item.fold[1], item.fold[2], work)


def roles_of(repeat: int, fold: int, work: Work) -> dict[str, list[str]]:
    """Slides of each role of a fold. Raises StageError where folds.csv names slides that take no part."""
    folds = read_folds(work)
    here = folds[(folds["repeat"] == repeat) & (folds["fold"] == fold)]
    known = set(work.labelled()["slide"])
    unknown = [slide for slide in here["slide"] if slide not in known]
    if unknown:
        raise StageError(
            f"folds.csv has slides that take no part ({unknown[0]!r} ...): mend it, or `wsi-mil split --redo`"
        )
    return {role: list(here["slide"][here["role"] == role]) for role in ("fit", "select", "calibrate", "test")}
