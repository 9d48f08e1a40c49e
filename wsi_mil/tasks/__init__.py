"""What is asked of a slide: each kind of question is one class in one file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsi_mil.errors import TaskError, unknown

if TYPE_CHECKING:
    from wsi_mil.tasks.classification import Classification as Classification
    from wsi_mil.tasks.joint import Joint as Joint
    from wsi_mil.tasks.multilabel import Multilabel as Multilabel
    from wsi_mil.tasks.ordinal import Ordinal as Ordinal
    from wsi_mil.tasks.regression import Regression as Regression
    from wsi_mil.tasks.survival import Survival as Survival
    from wsi_mil.tasks.task import Labels as Labels
    from wsi_mil.tasks.task import Task as Task

TASKS = {
    "classification": "Classification",
    "multilabel": "Multilabel",
    "regression": "Regression",
    "ordinal": "Ordinal",
    "survival": "Survival",
    "joint": "Joint",
}
"""Kind of question to the class in this face that asks it."""

# torch takes a second to load: it is loaded with the first name that needs it.
_FILES = {
    "Classification": "classification",
    "Joint": "joint",
    "Labels": "task",
    "Multilabel": "multilabel",
    "Ordinal": "ordinal",
    "Regression": "regression",
    "Survival": "survival",
    "Task": "task",
}
__all__ = ["TASKS", "build_task", "task_from_json", *sorted(_FILES)]  # pyright: ignore[reportUnsupportedDunderAll]


def build_task(kind: str, **options: Any) -> Task:
    """A question of one kind, as configured and not yet fitted. TaskError for an unknown kind or option."""
    import dataclasses

    task = _class(kind)
    known = {field.name for field in dataclasses.fields(task)}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise TaskError(unknown(f"option of task {kind!r}:", option, known))
    return task(**options)


def task_from_json(value: Mapping[str, Any]) -> Task:
    """The fitted question back from the JSON of a checkpoint."""
    return _class(str(value.get("kind"))).from_json(value)


def _class(kind: str) -> type[Task]:
    if kind not in TASKS:
        raise TaskError(unknown("kind of task", kind, TASKS))
    found: type[Task] = __getattr__(TASKS[kind])
    return found


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
