"""The command line: one command a stage, made in a loop over STAGES, and a few that look."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wsi_mil import commands, judging
from wsi_mil.errors import ConfigError, WsiMilError
from wsi_mil.stages import STAGES
from wsi_mil.version import __version__

app = typer.Typer(
    name="wsi-mil",
    help="Whole-slide images and slide labels in, trustworthy slide predictions and heatmaps out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STAGES_PANEL, LOOK_PANEL = "Stages, in order", "Look and try"
WITHOUT_LABELS = frozenset({"tissue", "tile", "extract"})
"""Stages that a few slides may go through whatever their labels."""

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings that win over the study file.")
]
WorkFolder = Annotated[Path, typer.Option("--work", "-w", help="Folder that the study is made in.")]
On = Annotated[str, typer.Option("--on", help="Where work runs: here, processes:N, gpus or dask:ADDRESS.")]
Redo = Annotated[bool, typer.Option("--redo", help="Make everything of this stage again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Shard = Annotated[str, typer.Option("--shard", help="Take only every n-th slide from the i-th on: i/n, as in 0/4.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log details, with the full trace of each failure.")]


def main() -> None:
    """Run the command line; every expected fault is one sentence and exit code 2, failed items are exit code 1."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except WsiMilError as error:
        _error_console().print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        _error_console().print("[yellow]interrupted[/]: what was made is kept; the same command goes on from there")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Whole-slide images and slide labels in, trustworthy slide predictions and heatmaps out."""
    if version:
        typer.echo(f"wsi_mil {__version__}")
        raise typer.Exit


def _stage_command(name: str) -> Callable[..., None]:
    def command(
        study: StudyFile,
        work: WorkFolder,
        settings: Settings = None,
        on: On = "here",
        redo: Redo = False,
        dry_run: DryRun = False,
        shard: Shard = "0/1",
        verbose: Verbose = False,
    ) -> None:
        _log(verbose=verbose)
        from wsi_mil.stages import load_study

        _run(
            [name],
            load_study(study, settings or []),
            work,
            on=on,
            redo=[name] if redo else [],
            dry=dry_run,
            shard=shard,
        )

    command.__doc__ = STAGES[name]
    return command


def predict(
    work: WorkFolder,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[STUDY.yaml] [section.key=value]...", help="The study, and settings.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Predict new slides with this model (a folder under train/).")
    ] = None,
    slides: Annotated[str, typer.Option("--slides", help="Folder or pattern of the new slides.")] = "",
    table: Annotated[Path | None, typer.Option("--table", help="Table of the new slides, where one is needed.")] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="Scale of all the slides, um per pixel; wins over their files, not over the table."),
    ] = None,
    on: On = "here",
    redo: Redo = False,
    dry_run: DryRun = False,
    shard: Shard = "0/1",
    verbose: Verbose = False,
) -> None:
    """Predict every slide and patient with models that never saw them.

    With --model and --slides: predict new slides, from their pixels to a table and heatmaps, in one command.
    """
    _log(verbose=verbose)
    from wsi_mil.stages import load_study, study_of_model

    given = list(arguments or [])
    study_file = Path(given.pop(0)) if given and "=" not in given[0] else None
    if model is None:
        if study_file is None:
            raise ConfigError("predict needs a study file, or --model and --slides for new slides")
        study = load_study(study_file, given)
        _run(["predict"], study, work, on=on, redo=["predict"] if redo else [], dry=dry_run, shard=shard)
        return
    if study_file is not None or not (slides or table):
        raise ConfigError(
            "with --model, give --slides FOLDER (or --table) and no study file: the model knows its study"
        )
    given += [] if mpp is None else [f"cohort.mpp={mpp}"]
    study = study_of_model(model, slides=slides, table=table, overrides=given)
    names = ["tissue", "tile", "extract", "predict", "calibrate", "heatmap"]
    _run(names, study, work, on=on, redo=names if redo else [], dry=dry_run, shard=shard)


def heatmap(
    study: StudyFile,
    work: WorkFolder,
    settings: Settings = None,
    evaluate: Annotated[
        str,
        typer.Option(
            "--evaluate",
            metavar="TRUTH",
            help="Then measure the maps: CSV of tiles, SLIDE.geojson or a folder of them; none: without a truth.",
        ),
    ] = "",
    truth_of: Annotated[str, typer.Option("--truth-of", help="Keep polygons of this classification.")] = "",
    one_scale: Annotated[
        str, typer.Option("--one-scale", metavar="patient|cohort", help="Then draw pictures on one scale.")
    ] = "",
    on: On = "here",
    redo: Redo = False,
    dry_run: DryRun = False,
    shard: Shard = "0/1",
    verbose: Verbose = False,
) -> None:
    """Draw, for each slide, the scores behind its prediction."""
    if one_scale not in ("", "patient", "cohort"):
        raise ConfigError(f"--one-scale is {one_scale!r}: it is patient or cohort")
    _stage_command("heatmap")(study, work, settings, on, redo, dry_run, shard, verbose)
    if one_scale and not dry_run:
        judging.on_one_scale(study, work, settings or [], over=one_scale)
    if evaluate and not dry_run:
        judging.believe(study, work, settings or [], truth=evaluate, truth_of=truth_of)


_OWN: dict[str, Callable[..., None]] = {"predict": predict, "heatmap": heatmap}
for _name in STAGES:
    app.command(_name, rich_help_panel=STAGES_PANEL)(_OWN.get(_name) or _stage_command(_name))


@app.command("run", rich_help_panel=STAGES_PANEL)
def run_all(
    study: StudyFile,
    work: WorkFolder,
    settings: Settings = None,
    on: On = "here",
    redo: Annotated[str, typer.Option("--redo", help="Make this stage and all after it again.")] = "",
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Run all stages in order."""
    _log(verbose=verbose)
    from wsi_mil.errors import unknown
    from wsi_mil.stages import load_study

    if redo and redo not in STAGES:
        raise ConfigError(unknown("stage", redo, STAGES))
    again = list(STAGES)[list(STAGES).index(redo) :] if redo else []
    told = load_study(study, settings or [])
    # Without slides the bags are there already, and there is nothing to draw on.
    pixels = ("tissue", "tile", "extract", "heatmap") if told.cohort.slides == "none" else ()
    names = [name for name in STAGES if name not in pixels]
    _run(names, told, work, on=on, redo=again, dry=dry_run, shard="0/1")


@app.command("demo", rich_help_panel=LOOK_PANEL)
def demo(
    work: WorkFolder = Path("demo"),
    slides: Annotated[int, typer.Option("--slides", min=12, help="How many slides to draw.")] = 24,
    on: On = "here",
    verbose: Verbose = False,
) -> None:
    """Draw a cohort of slides with a planted lesion and run the whole study on it, offline."""
    _log(verbose=verbose)
    from wsi_mil.demo import run_demo

    if not run_demo(work, slides=slides, on=on, console=_console()):
        raise typer.Exit(1)


app.command("view", rich_help_panel=LOOK_PANEL)(commands.view)
app.command("export-viewer", rich_help_panel=LOOK_PANEL)(commands.export_viewer)
app.command("case", rich_help_panel=LOOK_PANEL)(commands.case)
app.command("slide", rich_help_panel=LOOK_PANEL)(commands.slide)


@app.command("models", rich_help_panel=LOOK_PANEL)
def models() -> None:
    """List the aggregators: what they cost, whether places matter, whether contributions are exact."""
    from wsi_mil.console import show_models

    show_models(_console())


app.command("encoders", rich_help_panel=LOOK_PANEL)(commands.encoders)
app.command("compare", rich_help_panel=LOOK_PANEL)(judging.compare)
app.command("unknown", rich_help_panel=LOOK_PANEL)(judging.unknown)
app.command("sweep", rich_help_panel=LOOK_PANEL)(judging.sweep)
app.command("validate", rich_help_panel=LOOK_PANEL)(judging.validate)
app.add_typer(commands.bags, name="bags", rich_help_panel=LOOK_PANEL)


app.command("config", rich_help_panel=LOOK_PANEL)(commands.config)


def _run(names: list[str], study: Any, work: Path, *, on: str, redo: list[str], dry: bool, shard: str) -> None:
    """Run stages with progress, tell what failed, and end with exit code 1 if anything did."""
    from wsi_mil.compute import executor
    from wsi_mil.console import run_shown, show_outcomes, show_plans
    from wsi_mil.stages import Work

    place, part = Work(work.absolute(), study), _shard(shard)
    runner, console = executor(on), _console()
    work.mkdir(parents=True, exist_ok=True)
    place.check_cohort(folds=not set(names) <= WITHOUT_LABELS)
    if dry:
        show_plans(names, place, console, redo=redo, shard=part)
        return
    outcomes = []
    for name in names:
        ended = run_shown(name, place, runner, console, redo=name in redo, shard=part)
        outcomes += ended
        if ended and all(one.kind in ("failed", "empty") for one in ended):
            console.print(f"[red]{name} left nothing to go on with[/]")
            break
    show_outcomes(outcomes, console)
    if any(one.kind == "failed" for one in outcomes):
        raise typer.Exit(1)


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise ConfigError(f"cannot read --shard {text!r}: write i/n with 0 <= i < n, as in 0/4")
    return int(number), int(of)


def _log(*, verbose: bool) -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("wsi_mil").setLevel(logging.DEBUG if verbose else logging.INFO)


def _terminated(number: int, frame: Any) -> None:
    sys.stderr.write("terminated: what was made is kept; the same command goes on from there\n")
    sys.exit(128 + number)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _error_console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
