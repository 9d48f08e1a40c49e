"""What a stage is: a frozen record whose fields are its configuration, and whose items are one output each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from wsi_mil.config import Section

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

Tick = Callable[[int, int], None]
"""Called with (tiles done, tiles in all) while a long item is made."""


@dataclass(frozen=True)
class Item:
    """One thing a stage makes: a slide, a fold, or the whole study."""

    name: str
    path: str = ""
    """File of the slide, for items that are slides."""
    mpp: float | None = None
    """Scale given for the slide, where one is given."""
    mpp_source: Literal["cohort", "flag"] = "cohort"
    """Who gave it: a row of the cohort table, or `cohort.mpp`."""
    reader: str = ""
    """Reader that opens the slide; empty: the first that can."""
    memory_map: bool = False
    """Whether a TIFF is mapped into memory rather than read by place: never part of what is made."""
    fold: tuple[int, int, int] | None = None
    """Seed, repeat and fold, for items that are folds."""


@dataclass(frozen=True)
class Outcome:
    """What became of an item. `empty` is an answer (no tissue, no tiles), `failed` is a fault with its reason."""

    stage: str
    item: str
    kind: Literal["made", "found", "empty", "failed"]
    why: str = ""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures worth telling, such as tiles."""


class Stage(Section, ABC):
    """A step from files of one kind to files of the next; its fields are its identity, all else is `Runtime`."""

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    """Other sections of the study that decide what is made, such as `model`."""
    editable: ClassVar[bool] = False
    """Whether a person may edit an output; an edited one is kept as it is."""

    @property
    @abstractmethod
    def after(self) -> tuple[str, ...]:
        """Stages whose outputs this one reads."""

    @abstractmethod
    def folder(self, work: Work) -> Path:
        """Where the outputs lie, with stage.json and the records."""

    @abstractmethod
    def items(self, work: Work) -> list[Item]:
        """All items, in order."""

    @abstractmethod
    def output(self, item: Item, work: Work) -> Path:
        """The file or folder that the item is done with."""

    @abstractmethod
    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """Digests of all that the item is made from.

        Raises EmptyItem where there is nothing to make it from, StageError where an earlier stage has not been run.
        """

    def recheck(self, item: Item, work: Work, facts: Mapping[str, Any]) -> None:
        """Raise where an item that is made already may no longer be used, though its own inputs are the same.

        `facts` are those of its making. Nothing to look at in most stages.
        """

    @abstractmethod
    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Make the item at `draft` and return figures worth telling. Raises EmptyItem where nothing is in it."""
