"""A study file: the sections besides the stages, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from wsi_mil import files
from wsi_mil.cohort import NO_SLIDES
from wsi_mil.config import Section, StudyPath, load, parse
from wsi_mil.errors import ModelError
from wsi_mil.stages.calibrate import Calibrate
from wsi_mil.stages.extract import Extract
from wsi_mil.stages.heatmap import HeatmapStage
from wsi_mil.stages.predict import Predict
from wsi_mil.stages.question import TaskSection, unlabelled
from wsi_mil.stages.report import Report
from wsi_mil.stages.split import Split
from wsi_mil.stages.tile import Tile
from wsi_mil.stages.tissue import Tissue
from wsi_mil.stages.train import STUDY_JSON, Train


class CohortSection(Section):
    """Which slides there are, and whose."""

    table: StudyPath | None = None
    """CSV with a row a slide: slide, and as known path, patient, site, mpp and label columns."""
    slides: str = ""
    """Folder that holds the slides, or a pattern such as slides/*.svs; relative to the study file. `none`: there are
    only bags, imported from another program."""
    patient: str = "patient"
    """Column that says whose slide it is; without it every slide is a patient of its own."""
    label_of: Literal["slide", "patient"] = "slide"
    """What a label belongs to: with `patient`, predictions are also made per patient, and two labels are a fault."""
    mpp: float | None = Field(default=None, gt=0)
    """Scale of every slide to which the table gives none, in micrometres per pixel; wins over the file's own."""
    reader: Literal["", "tiff", "openslide", "dicom", "ome-zarr", "picture"] = ""
    """Reader that opens every slide; empty: for each the first that can (`wsi-mil slide FILE` says which)."""
    missing_labels: Literal["fault", "predict"] = "fault"
    """What a slide without a label is: a fault, or a slide to predict."""
    clinical: dict[str, Literal["number", "category"] | tuple[str, str]] = Field(default_factory=dict)
    """Clinical record for `model.fusion` and for persam: column and what it is, number or category, or a name and two
    columns of dates, whose days apart are read. Never what was found out after the slide was judged."""


class ModelSection(Section):
    """How a bag is read."""

    name: str = "abmil"
    """Aggregator: see MODELS."""
    label: str = ""
    """Folder under train/, predict/ and heatmap/; the name where empty."""
    bag_of: Literal["slide", "patient"] = "slide"
    """What is read as one: each slide, a patient's prediction being the mean over slides; or all slides of a patient
    side by side, where the label is known of the patient alone (needs `cohort.label_of: patient`)."""
    beside: tuple[str, ...] = ()
    """Further encoders whose features stand beside those of `extract.encoder`, tile by tile; extract with each."""
    fusion: Literal["none", "concat", "gated", "film"] = "none"
    """How the record of `cohort.clinical` is brought into a model that reads none itself (docs/models.md): gated and
    film keep the contributions of tiles exact."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the aggregator, such as hidden and attention."""


class Runtime(Section):
    """How fast, never what: nothing here changes a result beyond rounding."""

    device: str = "auto"
    """Where torch runs: cpu, cuda, cuda:1, or auto (a GPU where there is one)."""
    batch_tiles: int | None = Field(default=None, ge=1)
    """Tiles encoded at once; empty: 32 on a CPU, on a GPU as many as make it fast (found by trying, for seconds). What
    does not fit the memory is halved, and nothing is lost."""
    readers: int = Field(default=2, ge=1)
    """Threads that read tiles."""
    memory_map: bool = False
    """Map TIFFs on a disk of this machine into memory: processes that read one slide share its pages. Not for network
    disks, where a lost connection would kill the process."""
    threads: int = Field(default=0, ge=0)
    """Threads that torch computes with; 0 leaves it to torch."""
    compile: bool = False
    """Compile the encoder with torch.compile: minutes once a process, worth it on a GPU with many tiles."""
    bag_budget_mb: int = Field(default=1024, ge=1)
    """Bags up to this size are built in memory, larger ones in a draft file; so much memory holds bags in training."""
    device_bags_mb: int = Field(default=4096, ge=0)
    """Bags that stay on a GPU while a model is trained on them."""
    snapshot_s: float = Field(default=60, ge=0)
    """Seconds between two snapshots of a training run, from which it goes on when it was killed; 0 for none."""
    tracker: Literal["none", "mlflow"] = "none"
    """Where training runs are told besides train/<model>/log/*.jsonl: mlflow (its extra), offline."""
    tracker_uri: str = ""
    """MLflow's store; empty: mlruns/ in the work folder."""


class Study(Section):
    """A whole study: what the slides are, what is asked, and how each stage is done."""

    cohort: CohortSection = CohortSection()
    task: TaskSection = TaskSection()
    tissue: Tissue = Tissue()
    tile: Tile = Tile()
    extract: Extract = Extract()
    split: Split = Split()
    model: ModelSection = ModelSection()
    train: Train = Train()
    predict: Predict = Predict()
    calibrate: Calibrate = Calibrate()
    heatmap: HeatmapStage = HeatmapStage()
    report: Report = Report()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _patients_have_labels(self) -> Study:
        if self.model.bag_of == "patient" and self.cohort.label_of != "patient":
            raise ValueError("model.bag_of: patient needs cohort.label_of: patient, so that a bag has one label")
        return self


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read and check a study file. Raises ConfigError with every fault."""
    study = load(path, into=Study, overrides=overrides)
    slides = study.cohort.slides
    if slides and slides != NO_SLIDES and not Path(slides).is_absolute():
        study = study.model_copy(
            update={"cohort": study.cohort.model_copy(update={"slides": str(path.parent / slides)})}
        )
    return study


def study_of_model(model: Path, *, slides: str, table: Path | None = None, overrides: Sequence[str] = ()) -> Study:
    """The study that predicts new slides with trained models: the tissue, tiles and features that they were trained on.

    `model` is a folder of one trained model, or one with several below it (their mean is the prediction;
    they may be of several kinds, if they read the same features).
    Raises ModelError where there is none.
    """
    found = sorted(model.rglob(STUDY_JSON)) if model.is_dir() else []
    if not found:
        raise ModelError(f"{model} holds no trained model (no {STUDY_JSON} in it or below): give a folder of train/")
    told = files.read_json(found[0])
    values: dict[str, Any] = {name: told[name] for name in ("tissue", "tile", "extract", "task", "model")}
    # A table of tiles, and areas drawn by hand, belong to the slides that the model was trained on.
    values["tile"] = {**values["tile"], "table": None, "within": None}
    values["tissue"] = {**values["tissue"], "outlines": None}
    values["task"] = unlabelled(values["task"])
    # models of several kinds, such as all of train/, are an ensemble in which each counts alike
    kinds = {one["label"] or one["name"]: None for one in (files.read_json(path)["model"] for path in found)}
    values["model"] = {**values["model"], "label": "+".join(kinds)} if len(kinds) > 1 else values["model"]
    label_of = "patient" if values["model"].get("bag_of") == "patient" else "slide"
    values["cohort"] = {"table": str(table) if table else None, "slides": slides, "label_of": label_of}
    values["predict"] = {"models": str(model.absolute())}
    return parse(yaml.safe_dump(values), into=Study, overrides=overrides, folder=Path(), where=str(found[0]))
