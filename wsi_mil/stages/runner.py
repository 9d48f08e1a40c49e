"""Run a stage: make what is missing, stop at nothing, tell what became of each item."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wsi_mil import files
from wsi_mil.compute import Executor, Lost
from wsi_mil.errors import EmptyItem, StageError, WsiMilError
from wsi_mil.stages import ledger
from wsi_mil.stages.stage import Item, Outcome, Stage, Tick
from wsi_mil.stages.work import Work

logger = logging.getLogger("wsi_mil")

State = Literal["missing", "found", "edited", "stale", "empty", "blocked"]


@dataclass(frozen=True)
class Plan:
    """What a run would do with an item, and why."""

    item: str
    state: State
    why: str = ""


def run(
    stage: Stage,
    work: Work,
    executor: Executor,
    *,
    redo: bool = False,
    shard: tuple[int, int] = (0, 1),
    tick: Callable[[str, int, int], None] | None = None,
) -> Iterator[Outcome]:
    """Make every item of a stage that is missing or stale (all with `redo`), wherever the executor runs.

    Yields an Outcome for each item as it ends. `shard` is (i, n): only items i, i + n, i + 2n ... are taken.
    Raises StageError before any work where the configuration differs from the one the folder was made with.
    """
    ledger.check_chain(stage, work, redo=redo)
    folder = stage.folder(work)
    files.sweep(folder)
    items = shard_of(stage.items(work), shard)
    calls = [(stage, item, work, redo) for item in items]
    if executor.remote or tick is None:
        ended = executor.run(process, calls)
    else:
        ended = executor.run(process, [(*call, _ticker(tick, call[1])) for call in calls])
    for index, result in ended:
        if isinstance(result, Lost):
            result = Outcome(stage.name, items[index].name, "failed", str(result))
            ledger.write_record(stage, result, work, inputs="", output=folder)
        yield result


def plan(stage: Stage, work: Work, *, redo: bool = False, shard: tuple[int, int] = (0, 1)) -> list[Plan]:
    """What `run` would do with each item; nothing is made or written."""
    if (stage.folder(work) / "stage.json").exists():
        ledger.check_chain(stage, work, redo=False) if not redo else None
    return [_plan(stage, item, work, redo=redo)[0] for item in shard_of(stage.items(work), shard)]


def shard_of(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Every n-th item from the i-th on, for a Slurm array that shares a cohort."""
    number, of = shard
    if not 0 <= number < of:
        raise StageError(f"there is no shard {number}/{of}: write i/n with 0 <= i < n, as in 0/4")
    return list(items[number::of])


def process(stage: Stage, item: Item, work: Work, redo: bool, tick: Tick | None = None) -> Outcome:
    """Make one item, or find it made. Every fault becomes an Outcome with its reason: one slide never stops another."""
    output = stage.output(item, work)
    start = time.perf_counter()
    inputs = ""
    try:
        planned, inputs = _plan(stage, item, work, redo=redo)
        if planned.state in ("found", "edited"):
            facts = _known_facts(stage, item, work)
            stage.recheck(item, work, facts)
            return Outcome(stage.name, item.name, "found", planned.why, facts=facts)
        if planned.state == "empty":
            raise EmptyItem(planned.why)
        if planned.state == "blocked":
            raise StageError(planned.why)
        with files.drafted(output) as draft:
            facts = stage.make(item, work, draft, tick or _no_tick)
        outcome = Outcome(stage.name, item.name, "made", planned.why, time.perf_counter() - start, facts)
    except EmptyItem as empty:
        files.remove(output)  # what an earlier, larger input made
        outcome = Outcome(stage.name, item.name, "empty", str(empty), time.perf_counter() - start)
    except WsiMilError as error:
        outcome = Outcome(stage.name, item.name, "failed", str(error), time.perf_counter() - start)
    except Exception as error:
        # The one place that catches what it cannot name: libraries raise what they like on a damaged slide, and the
        # other slides must go on. The full trace goes to the log, the reason into the table.
        logger.debug("%s of %s failed", stage.name, item.name, exc_info=True)
        outcome = Outcome(stage.name, item.name, "failed", _reason(error), time.perf_counter() - start)
    _remember(stage, outcome, work, inputs=inputs)
    return outcome


def _plan(stage: Stage, item: Item, work: Work, *, redo: bool) -> tuple[Plan, str]:
    """The state of an item, and the digest of its inputs as they are now."""
    told = ledger.read_record(stage, item.name, work)
    output = stage.output(item, work)
    if ledger.edited(stage, output, told):
        return Plan(item.name, "edited", "edited by hand: kept as it is"), ""
    try:
        inputs = ledger.inputs_digest(stage, item, work)
    except EmptyItem as empty:
        return Plan(item.name, "empty", str(empty)), ""
    except WsiMilError as error:
        return Plan(item.name, "blocked", str(error)), ""
    if redo:
        return Plan(item.name, "missing", "redone"), inputs
    if told and told["outcome"] == "empty" and told["inputs"] == inputs and not output.exists():
        return Plan(item.name, "empty", told["why"]), inputs
    if not output.exists():
        return Plan(item.name, "missing"), inputs
    if told and told["outcome"] == "failed":
        return Plan(item.name, "stale", "the last run of it failed: made again"), inputs
    if told is None or told["inputs"] == inputs:
        return Plan(item.name, "found"), inputs
    return Plan(item.name, "stale", "its input has changed: made again"), inputs


def _remember(stage: Stage, outcome: Outcome, work: Work, *, inputs: str) -> None:
    try:
        ledger.write_record(stage, outcome, work, inputs=inputs, output=stage.output(Item(outcome.item), work))
    except OSError as error:
        logger.warning("cannot write the record of %s: %s", outcome.item, error)


def _known_facts(stage: Stage, item: Item, work: Work) -> dict[str, object]:
    told = ledger.read_record(stage, item.name, work)
    return dict(told["facts"]) if told else {}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'work folder'}): make room, then run the same command again"
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"


def _ticker(tick: Callable[[str, int, int], None], item: Item) -> Tick:
    return lambda done, total: tick(item.name, done, total)


def _no_tick(done: int, total: int) -> None:
    """Nobody watches."""
