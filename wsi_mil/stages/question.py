"""The question of a study as its file asks it: which columns it reads, what is wrong with them, and the task it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from wsi_mil import tasks
from wsi_mil.config import Section
from wsi_mil.errors import CohortError

if TYPE_CHECKING:
    import pandas as pd

    from wsi_mil.stages.work import Work

FIELDS: dict[str, tuple[str, ...]] = {
    "classification": ("label", "classes", "positive", "class_weights", "objective"),
    "multilabel": ("labels", "class_weights", "objective"),
    "regression": ("label", "objective"),
    "ordinal": ("label", "classes", "objective"),
    "survival": ("time", "event", "bins", "horizons", "objective"),
    "joint": ("parts",),
}
"""Fields that each kind of question reads; any other that is set is a fault."""

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "classification": ("cross_entropy", "focal", "symmetric"),
    "multilabel": ("cross_entropy", "focal"),
    "regression": ("squared", "huber"),
    "ordinal": ("cumulative", "corn"),
    "survival": ("cox", "discrete"),
    "joint": (),
}
"""Losses of each kind, the default in front."""


class Asked(Section):
    """One question to each slide."""

    kind: Literal["classification", "multilabel", "regression", "ordinal", "survival", "joint"] = "classification"
    """Kind of question: one of several classes; several columns of 0 and 1; a number; grades in order; time to an
    event; several of these at once (docs/tasks.md)."""
    label: str = ""
    """Label column of the cohort table, of a classification, regression or ordinal task."""
    classes: tuple[str, ...] = ()
    """The labels in order, the positive one last; empty takes those of the table, sorted."""
    positive: str = ""
    """The label that is put last where `classes` is empty."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a class weighs in the loss as 1 / its share of the slides, for rare classes."""
    objective: Literal[
        "", "cross_entropy", "focal", "symmetric", "squared", "huber", "corn", "cumulative", "cox", "discrete"
    ] = ""
    """The loss; empty takes the first. classification: cross_entropy, focal, symmetric; multilabel: cross_entropy,
    focal; regression: squared, huber; ordinal: cumulative, corn; survival: cox, discrete."""
    labels: tuple[str, ...] = ()
    """Columns of 0 and 1 of a multilabel task; an empty cell is unknown."""
    time: str = ""
    """Column with the time of the event or of the last visit, of a survival task."""
    event: str = ""
    """Column with 1 for the event and 0 for the last visit without it."""
    bins: int = Field(default=4, ge=2)
    """Bins of time of the discrete loss, each with about as many training events."""
    horizons: tuple[float, ...] = ()
    """Times at which survival is predicted and judged; empty predicts the risk alone."""

    @field_validator("classes", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        # In YAML a class 0 is a number; in a table it is text.
        return tuple(str(item) for item in value) if isinstance(value, (list, tuple)) else value

    @model_validator(mode="after")
    def _suits_its_kind(self) -> Asked:
        foreign = {name for names in FIELDS.values() for name in names} - set(FIELDS[self.kind])
        faults = [
            f"{name} is for kind {' or '.join(kind for kind, names in FIELDS.items() if name in names)}"
            for name, field in type(self).model_fields.items()
            if name in foreign and getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        if self.objective and self.objective not in OBJECTIVES[self.kind]:
            faults.append(f"objective is one of {', '.join(OBJECTIVES[self.kind]) or 'each part, not here'}")
        if list(self.horizons) != sorted({time for time in self.horizons if time > 0}):
            faults.append("horizons are times above 0 in rising order")
        if bool(self.time) != bool(self.event):
            faults.append("time and event go together: name both columns")
        if faults:
            raise ValueError(f"with kind {self.kind}: {'; '.join(faults)}")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Label columns of the cohort table; none where the question is only carried over to new slides."""
        names = {"multilabel": self.labels, "survival": (self.time, self.event)}.get(self.kind, (self.label,))
        return tuple(name for name in names if name)


class Part(Asked):
    """One of several questions that are asked at once."""

    weight: float = Field(default=1.0, gt=0)
    """Of its loss."""

    @field_validator("kind", mode="after")
    @classmethod
    def _one_question(cls, value: str) -> str:
        if value == "joint":
            raise ValueError("a part is one question, not several")
        return value


class TaskSection(Asked):
    """What is asked of each slide."""

    parts: dict[str, Part] = Field(default_factory=dict)
    """Of a joint task: name and question, each written as a task of its own, with a weight; labels may be missing."""

    @model_validator(mode="after")
    def _has_parts(self) -> TaskSection:
        if (self.kind == "joint") != bool(self.parts):
            raise ValueError("kind joint and parts go together: give both or neither")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Label columns of the cohort table, each once."""
        if self.kind != "joint":
            return super().columns
        return tuple(dict.fromkeys(column for part in self.parts.values() for column in part.columns))

    @property
    def questions(self) -> dict[str, Asked]:
        """The questions by the name before their answers: the parts, or the one question without a name."""
        return dict(self.parts) if self.kind == "joint" else {"": self}


def known(asked: Asked, frame: pd.DataFrame) -> pd.Series:
    """Which rows have a label to learn from: of several columns one is enough, but survival needs both."""
    if isinstance(asked, TaskSection) and asked.kind == "joint":
        found = [known(part, frame) for part in asked.parts.values()]
        return _any(found)
    filled = [frame[column] != "" for column in asked.columns]
    return _any(filled) if asked.kind == "multilabel" else ~_any([~one for one in filled])


def told(asked: Asked, frame: pd.DataFrame) -> pd.Series:
    """The label of each row as a person reads it; empty where there is none."""
    import pandas as pd

    if not asked.columns:
        return pd.Series("", index=frame.index)
    words = frame[list(asked.columns)].apply(lambda row: _TOLD[asked.kind](asked, row), axis=1)
    return words.where(known(asked, frame), "")


def cells(asked: Asked, frame: pd.DataFrame) -> dict[str, str]:
    """All label cells of each slide as one text, to tell whether they have changed."""
    joined = frame[list(asked.columns)].agg("|".join, axis=1)
    return dict(zip(frame["slide"], joined, strict=True))


def faults(task: TaskSection, frame: pd.DataFrame, *, missing_labels: str) -> list[str]:
    """Everything that is wrong with the label columns besides what is wrong with any label column."""
    from wsi_mil import cohort

    lacking = [column for column in task.columns if column not in frame.columns]
    if lacking or not task.columns:
        return []  # said by the table itself; new slides have no labels
    found: list[str] = []
    for asked in task.questions.values():
        if asked.kind == "multilabel":
            found += cohort.flag_faults(frame, asked.columns)
        elif asked.kind == "regression":
            found += cohort.number_faults(frame, asked.label)
        elif asked.kind == "ordinal":
            found += cohort.grade_faults(frame, asked.label, asked.classes)
        elif asked.kind == "survival":
            found += cohort.survival_faults(frame, asked.time, asked.event)
        if task.kind == "joint" and asked.classes:
            found += cohort.class_faults(frame, asked.label, asked.classes)
    rows = [str(row + 2) for row in frame.index[~known(task, frame)]] if task.columns else []
    if rows and missing_labels == "fault" and task.kind in ("multilabel", "joint"):
        found.append(f"rows {', '.join(rows)}: no label at all: fill one in, or set cohort.missing_labels: predict")
    return found


def strata(task: TaskSection, frame: pd.DataFrame, *, least: int) -> pd.Series:
    """What folds are balanced by: the class itself, or groups with `least` patients or more; of parts, the first."""
    from wsi_mil import cohort

    asked = next(iter(task.questions.values()))
    if task.kind == "joint":
        filled = known(asked, frame)
        names = strata(TaskSection.model_validate(_alone(asked)), frame[filled], least=least)
        return cohort.joined_strata(frame, names.reindex(frame.index).fillna("unknown"), least=least)
    if asked.kind == "multilabel":
        return cohort.flag_strata(frame, asked.columns, least=least)
    if asked.kind == "regression":
        return cohort.number_strata(frame, asked.label, least=least)
    if asked.kind == "survival":
        return cohort.survival_strata(frame, asked.time, asked.event, least=least)
    if asked.kind == "ordinal":
        return cohort.joined_strata(frame, frame[asked.label], least=least)
    return frame[asked.label]


def check_events(task: TaskSection, folds: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Raise CohortError where a fold has no event to learn from or to be tested on."""
    found = []
    for asked in task.questions.values():
        if asked.kind != "survival":
            continue
        died = set(frame["slide"][frame[asked.event].str.strip().isin(["1", "1.0"])])
        for (repeat, fold), rows in folds.groupby(["repeat", "fold"]):
            found += [
                f"repeat {repeat}, fold {fold} has no event of {asked.event!r} in the role {role}"
                for role in ("fit", "test")
                if not died & set(rows["slide"][rows["role"] == role])
            ]
    if found:
        raise CohortError(f"{'; '.join(found[:10])}: lower split.folds, or deal again with another split.seed")


def labels_of(work: Work) -> dict[str, dict[str, str]]:
    """Label cells of every slide that takes part, as a task reads them."""
    columns = list(work.study.task.columns)
    slides = list(work.labelled()["slide"])
    rows = work.rows_of(slides)[columns].to_dict(orient="records")
    told = [{str(name): str(cell) for name, cell in row.items()} for row in rows]
    return dict(zip(slides, told, strict=True))


def fitted_task(work: Work, slides: Sequence[str]) -> tasks.Task:
    """The study's task with the names of its answers from the whole table, and all else from the given slides."""
    labels = labels_of(work)
    return build(work.study.task).named(labels).fit({slide: labels[slide] for slide in slides})


def build(asked: Asked) -> tasks.Task:
    """The task as configured and not yet fitted."""
    if isinstance(asked, TaskSection) and asked.kind == "joint":
        parts = tuple((name, build(part), part.weight) for name, part in asked.parts.items())
        return tasks.build_task("joint", parts=parts)
    options = {name: getattr(asked, name) for name in FIELDS[asked.kind]}
    return tasks.build_task(asked.kind, **{**options, "objective": asked.objective or OBJECTIVES[asked.kind][0]})


def unlabelled(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task's section for slides whose labels are not known: what was asked, without the columns."""
    bare = {**task, "label": "", "labels": [], "time": "", "event": ""}
    parts = {name: unlabelled(part) for name, part in dict(task.get("parts", {})).items()}
    return {**bare, "parts": parts} if "parts" in task else bare


def _alone(asked: Asked) -> dict[str, Any]:
    return {name: value for name, value in asked.model_dump().items() if name != "weight"}


def _any(columns: Sequence[pd.Series]) -> pd.Series:
    found = columns[0]
    for one in columns[1:]:
        found = found | one
    return found


def _told_labels(asked: Asked, row: Any) -> str:
    yes = [name for name in asked.columns if row[name][:1] == "1"]
    unknown = [name for name in asked.columns if row[name] == ""]
    return ("+".join(yes) or "none") + (f" ({', '.join(unknown)} unknown)" if unknown else "")


def _told_time(asked: Asked, row: Any) -> str:
    return f"{row[asked.time]} {'event' if row[asked.event][:1] == '1' else 'censored'}"


def _told_parts(asked: Asked, row: Any) -> str:
    assert isinstance(asked, TaskSection)
    said = []
    for name, part in asked.parts.items():
        cells = [row[column] for column in part.columns]
        if any(cells) if part.kind == "multilabel" else all(cells):
            said.append(f"{name} {_TOLD[part.kind](part, row)}")
    return "; ".join(said)


def _told_cell(asked: Asked, row: Any) -> str:
    return str(row[asked.label])


_TOLD: dict[str, Callable[[Asked, Any], str]] = {
    "classification": _told_cell,
    "multilabel": _told_labels,
    "regression": _told_cell,
    "ordinal": _told_cell,
    "survival": _told_time,
    "joint": _told_parts,
}
