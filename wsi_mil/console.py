"""What a person sees in a terminal: progress while a stage runs, and a table of what became of each item."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from wsi_mil.compute import Executor
from wsi_mil.slides import Slide
from wsi_mil.stages import STAGES, Outcome, Work, plan, run, told_pace

REASONS_SHOWN, PROSE, NAME = 30, 40, 24
"""Rows of a table of reasons; letters of a cell that may be broken, numbers with their intervals being shorter; letters
of a first column that is never broken."""

PLAIN_LINE_EVERY_S = 5.0
"""In a log file (no terminal) a line at most this often: a Slurm log of 50,000 slides must stay readable."""

SEEN = {"yes": "[yellow]yes[/]", "probably": "[yellow]probably[/]"}
"""Whether an encoder was pretrained on TCGA, where that is a reason for care."""

COLOURS = {"made": "green", "found": "cyan", "empty": "yellow", "failed": "red"}


class _TilesPerSecond(ProgressColumn):
    """Tiles encoded a second since the stage began."""

    def render(self, task: Task) -> Text:
        tiles = task.fields.get("tiles", 0)
        if not tiles or not task.elapsed:
            return Text("")
        return Text(f"{tiles / task.elapsed:,.0f} tiles/s", style="magenta")


def run_shown(
    name: str, work: Work, executor: Executor, console: Console, *, redo: bool = False, shard: tuple[int, int] = (0, 1)
) -> list[Outcome]:
    """Run a stage with a progress bar (lines at a bounded rate where there is no terminal); return its outcomes."""
    stage = work.stage(name)
    outcomes: list[Outcome] = []
    items = len(stage.items(work)[shard[0] :: shard[1]])
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description:8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _TilesPerSecond(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=items, now="", tiles=0)
        told, finished_tiles = time.monotonic(), 0

        def tick(item: str, done: int, total: int) -> None:
            completed = len(outcomes) + done / max(total, 1)
            progress.update(bar, completed=completed, now=escape(item), tiles=finished_tiles + done)

        for outcome in run(stage, work, executor, redo=redo, shard=shard, tick=tick):
            outcomes.append(outcome)
            finished_tiles += int(outcome.facts.get("tiles", 0)) if outcome.kind == "made" else 0
            progress.update(bar, completed=len(outcomes), now=escape(outcome.item), tiles=finished_tiles)
            if not console.is_terminal and time.monotonic() - told > PLAIN_LINE_EVERY_S:
                console.print(f"{name}: {len(outcomes)} of {items}, last {escape(outcome.item)}")
                told = time.monotonic()
    counts = Counter[str](outcome.kind for outcome in outcomes)
    told_counts = ", ".join(f"[{COLOURS[kind]}]{counts[kind]} {kind}[/]" for kind in COLOURS if counts[kind])
    seconds = sum(outcome.seconds for outcome in outcomes)
    console.print(
        f"[bold]{name:8}[/] {told_counts or 'nothing to do'} [dim]({seconds:.1f} s of work{_speed(outcomes)})[/]"
    )
    if name == "extract":
        show_pace(outcomes, console)
    return outcomes


def show_pace(outcomes: Sequence[Outcome], console: Console) -> None:
    """Where the time of extraction went."""
    made = [(int(one.facts["tiles"]), one.facts["pace"]) for one in outcomes if one.kind == "made" and one.facts]
    rows, why = told_pace(made)
    if rows:
        console.print("         " + ", ".join(f"{step} {rate} tiles/s" for step, _, rate in rows), style="dim")
        console.print(f"         {why}", style="dim")


def show_outcomes(outcomes: Sequence[Outcome], console: Console) -> None:
    """The items that need a person's eye: empty and failed, with their reasons; each reason once a slide."""
    table = Table(title="Empty and failed", title_justify="left", show_lines=False, expand=False, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("item", no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column("outcome", no_wrap=True)
    table.add_column("reason", overflow="fold")
    shown = list(_first_of_each(outcomes))
    for outcome in shown[:REASONS_SHOWN]:
        kind = f"[{COLOURS[outcome.kind]}]{outcome.kind}[/]"
        table.add_row(outcome.stage, escape(outcome.item), kind, escape(outcome.why))
    if shown:
        console.print(table)
    if len(shown) > REASONS_SHOWN:
        console.print(f"... and {len(shown) - REASONS_SHOWN} more: the report lists them all")


def show_table(rows: Iterable[Sequence[Any]], headers: Sequence[str], console: Console, *, title: str = "") -> None:
    """A plain table; one of numbers that is wider than the terminal as a list, and in a file as wide as it is."""
    rows = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title or None, title_justify="left", pad_edge=False)
    for place, (header, *cells) in enumerate(zip(headers, *rows, strict=True)):
        widest = max([12, *map(len, cells)])
        whole = place == 0 and widest <= NAME  # a name is there to be copied
        table.add_column(fill(header, widest, break_long_words=False), overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(escape, row))
    wide = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    prose = any(len(cell) > PROSE for row in rows for cell in row)
    if prose or not console.is_terminal or wide <= console.width:
        console.width = console.width if prose else max(console.width, wide)
        console.print(table)
        return
    console.print(title, style="italic", highlight=False)
    for name, *cells in rows:
        told = (f"{header} {cell}" for header, cell in zip(headers[1:], cells, strict=True) if cell not in ("", "–"))
        console.print(f"[bold]{escape(name)}[/]\n  " + escape("\n  ".join(told)), highlight=False)


def show_plans(
    names: Sequence[str], work: Work, console: Console, *, redo: Sequence[str], shard: tuple[int, int]
) -> None:
    """What each stage would do."""
    rows = []
    for name in names:
        plans = plan(work.stage(name), work, redo=name in redo, shard=shard)
        counts = Counter(one.state for one in plans)
        first = next((f"{one.item}: {one.why}" for one in plans if one.why), "")
        rows.append((name, len(plans), ", ".join(f"{count} {state}" for state, count in counts.items()), first))
    show_table(rows, ("stage", "items", "state", "first reason"), console, title="Dry run: nothing is made")


def show_slide(slide: Slide, console: Console) -> None:
    """What a reader sees: identity, scale and its source, levels, the pictures beside the pyramid."""
    scale = " x ".join(f"{value:.6g}" for value in slide.mpp) if slide.mpp_source != "missing" else "unknown"
    told = slide.mpp_source if slide.mpp_source != "missing" else "missing: give it with --mpp or in the cohort table"
    facts = [
        ("slide", slide.id),
        ("reader", type(slide).__name__),
        ("vendor", slide.vendor),
        ("size, level-0 pixels", f"{slide.size_l0[0]:,} x {slide.size_l0[1]:,}"),
        ("um per pixel, x and y", scale),
        ("scale from", told),
        ("associated pictures", ", ".join(slide.associated) or "none"),
        ("fingerprint", slide.fingerprint[:16]),
        *sorted(slide.properties.items()),
    ]
    show_table(facts, ("property", "value"), console)
    rows = []
    for number, level in enumerate(slide.levels):
        own = "" if slide.mpp_source == "missing" else f"{slide.mpp[0] * level.downsample[0]:.4g}"
        rows.append((number, level.width, level.height, *(f"{one:.5g}" for one in level.downsample), own))
    show_table(rows, ("level", "width", "height", "downsample x", "downsample y", "um per pixel"), console)


def show_readers(found: Mapping[str, Slide | str], console: Console) -> None:
    """What each reader makes of a slide: the first that opens it is the one that reads it."""
    chosen = next((name for name, one in found.items() if not isinstance(one, str)), None)
    rows = [
        (name, "chosen" if name == chosen else "refuses" if isinstance(one, str) else "opens it too", _reason(one))
        for name, one in found.items()
    ]
    show_table(rows, ("reader", "", "why"), console)


def _reason(found: Slide | str) -> str:
    return found if isinstance(found, str) else f"{len(found.levels)} level{'s' if len(found.levels) > 1 else ''}"


def show_comparison(found: Mapping[str, Slide | str], console: Console) -> None:
    """How far the readers that open a slide differ on random regions of it."""
    from wsi_mil.slides import compare

    opened = {name: one for name, one in found.items() if not isinstance(one, str)}
    if len(opened) < 2:
        console.print("only one reader opens this slide: there is nothing to compare it with")
        return
    rows = [
        (
            f"{one} and {two}",
            part.level,
            part.regions,
            part.worst,
            f"{part.mean:.3f}",
            f"{part.differing:.1%}",
            part.fault,
        )
        for (one, two), parts in compare(opened).items()
        for part in parts
    ]
    headers = ("readers", "level", "regions", "worst, grey levels", "mean", "pixels that differ", "fault")
    show_table(rows, headers, console, title="Random regions through both readers")
    if "openslide" in opened:
        console.print("(OpenSlide interpolates on levels whose downsample is no whole number)")


def show_models(console: Console) -> None:
    """Every aggregator with what decides between them."""
    from wsi_mil.models import MODELS

    asked = ("spatial", "exact_contributions")
    rows = [
        (name, *(_told(getattr(method, key, None)) for key in asked), method.use, method.cost, method.paper)
        for name, method in sorted(MODELS.items())
    ]
    show_table(rows, ("model", "spatial", "exact map", "when to use it", "cost in N tiles", "paper"), console)


def show_encoders(console: Console) -> None:
    """Every encoder of the catalogue with what decides between them, and whether its weights are here."""
    from wsi_mil.encoders import CATALOGUE, weights_folder, where_installed

    marks = {"yes": "gated", "no": "open", "unknown": "?"}
    rows = [("offline", "476", "", "any", "any", "Apache-2.0", "yes", "open", "no", "yes")]
    rows += [
        (
            row.name,
            str(row.dim),
            f"{row.parameters / 1e6:,.0f}",
            row.scale.replace(" to ", "-").replace("0.", "."),
            str(row.tile_px),
            row.licence,
            row.commercial,
            marks[row.gated],
            row.saw_tcga,
            where_installed(row),
        )
        for row in CATALOGUE.values()
    ]
    widths = {"encoder": 13, "dim": 4, "M": 5, "um/px": 8, "tile": 4, "licence": 4, "for profit": 10, "access": 6}
    widths |= {"saw TCGA": 8, "here": 4}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for header, width in widths.items():
        right = header in ("dim", "M", "tile")
        table.add_column(header, justify="right" if right else "left", no_wrap=True, min_width=width)
    for name, *cells in rows:
        cells[-2] = SEEN.get(cells[-2], cells[-2])
        table.add_row(f"[bold]{name}[/]", *("[dim]?[/]" if cell == "unknown" else cell for cell in cells))
    console.print(table)
    console.print(
        "M: millions of parameters. tile: usual side in pixels at the finest scale. for profit: the licence allows it. "
        "?: not known for certain.\n"
        "Licences are pointers: read the model's card. Besides these: timm:NAME, and local:FOLDER as timm saves it.\n"
        f"Weights folder: {escape(str(weights_folder()))}",
        highlight=False,
    )


def show_check(facts: Iterable[tuple[str, object]], console: Console) -> None:
    """What an encoder is."""
    show_table(facts, ("contract", "value"), console)


def _told(value: object) -> str:
    """What a class says of itself; what only its options decide is not on the class."""
    return "yes" if value is True else "no" if value is False else "by option"


def _first_of_each(outcomes: Sequence[Outcome]) -> Iterable[Outcome]:
    """What is told of a slide in several stages is the first fault; the later ones only follow from it."""
    order = list(STAGES)
    seen: set[str] = set()
    for outcome in sorted(outcomes, key=lambda one: order.index(one.stage)):
        if outcome.kind in ("empty", "failed") and outcome.item not in seen:
            seen.add(outcome.item)
            yield outcome


def _speed(outcomes: Sequence[Outcome]) -> str:
    encoded = [one for one in outcomes if one.kind == "made" and one.stage == "extract"]
    tiles, seconds = sum(int(one.facts["tiles"]) for one in encoded), sum(one.seconds for one in encoded)
    return f", {tiles:,} tiles, {tiles / seconds:,.0f} tiles/s" if tiles else ""
