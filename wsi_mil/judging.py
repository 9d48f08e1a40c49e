"""Commands that judge: studies side by side, choices among models, and a frozen model on another cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mil import files

if TYPE_CHECKING:
    from rich.console import Console

    from wsi_mil.evaluation import Difference, Interval
    from wsi_mil.stages import Comparison


def compare(
    works: Annotated[
        list[Path], typer.Argument(metavar="WORK...", help="Work folders; each with one model or several.")
    ],
    metric: Annotated[
        str,
        typer.Option("--metric", help="What is compared: auroc, brier, mae ...; empty: the question's own in front."),
    ] = "",
    draws: Annotated[int, typer.Option("--draws", min=100, help="Resamples of the patients.")] = 1000,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write.")] = None,
) -> None:
    """Several studies of the same patients side by side, with paired tests against the first."""
    from rich.console import Console

    from wsi_mil.stages import compare_works

    found, console = compare_works(works, metric=metric, draws=draws), Console()
    for told in found:
        _show_compared(told, console)
    if output is not None:
        files.write_json(output, _plain(found[0]) if len(found) == 1 else {one.question: _plain(one) for one in found})
        console.print(f"written to {output}", highlight=False, markup=False)


def _show_compared(told: Comparison, console: Console) -> None:
    """One question's table, and what must be known to read it."""
    from wsi_mil.console import show_table

    names = list(told.studies[0].metrics)
    tested = any(one.p is not None for one in told.studies)
    delong = any(one.by_delong for one in told.studies)
    folds = any(one.by_folds for one in told.studies)
    headers = ["study", *names, f"{told.metric} less the first"] + ["p (permutation, Holm)"] * tested
    headers += ["DeLong"] * delong + ["over folds (Nadeau, Bengio)"] * folds
    rows = []
    for one in told.studies:
        row = [one.name, *(_text(one.metrics[name]) for name in names), _text(one.difference)]
        row += ["" if one.p is None else f"{one.p:.3f}"] * tested
        row += [_text(one.by_delong) + (f", p {one.by_delong.p:.3f}" if one.by_delong else "")] * delong
        rows.append(row + [_text(one.by_folds)] * folds)
    of = f"{told.question}: " if told.question else ""
    title = f"{of}{told.cases} {told.level}s of {told.patients} patients that all have predicted; 95 % intervals"
    show_table(rows, headers, console, title=title)
    for note in told.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def believe(study: Path, work: Path, settings: list[str], *, truth: str, truth_of: str) -> None:
    """Measure the maps of a study: faithfulness, and where a truth is given, what they find."""
    from rich.console import Console

    from wsi_mil.console import show_table
    from wsi_mil.stages import Work, load_study
    from wsi_mil.stages import believe as measured

    told = " ".join([f"--evaluate {Path(truth).name}", *([f"--truth-of {truth_of}"] if truth_of else [])])
    console = Console()
    with console.status("measuring the maps") as status:
        headers, rows, paths = measured(
            Work(work.absolute(), load_study(study, settings)),
            None if truth == "none" else Path(truth),
            truth_of=truth_of,
            command=f"wsi-mil heatmap {study.name} {told}",
            tick=lambda done, total: status.update(f"measuring the maps: {done} of {total} slides"),
        )
    show_table(rows, headers, console, title="Means over slides; in brackets 95 % intervals over patients")
    console.print("written to " + " and ".join(str(path) for path in paths), highlight=False, markup=False)


def on_one_scale(study: Path, work: Path, settings: list[str], *, over: str) -> None:
    """Draw the maps of a study once more, on one scale."""
    from wsi_mil.stages import Work, draw_on_one_scale, load_study

    drawn = draw_on_one_scale(Work(work.absolute(), load_study(study, settings)), over)
    typer.echo(f"{len(drawn)} pictures SLIDE.{over}.png on one scale, beside the maps")


def validate(
    model: Annotated[Path, typer.Option("--model", help="Folder of trained models: train/MODEL of a study.")],
    table: Annotated[Path, typer.Option("--table", help="Table of the other cohort, with its labels.")],
    label: Annotated[str, typer.Option("--label", help="Label column; its values are named as the model's classes.")],
    work: Annotated[Path, typer.Option("--work", "-w", help="Folder to work in.")],
    slides: Annotated[
        str, typer.Option("--slides", help="Folder or pattern of the slides; none: their bags are in --work already.")
    ] = "",
    groups: Annotated[str, typer.Option("--groups", help="Columns judged apart, with commas.")] = "site",
    local: Annotated[str, typer.Option("--local", help="Numbers of local patients to recalibrate with.")] = "10,20,50",
    draws: Annotated[int, typer.Option("--draws", min=100, help="Resamples of the patients.")] = 1000,
    settings: Annotated[list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings.")] = None,
) -> None:
    """A frozen model, its calibrator and its threshold on another cohort, from the slides to a page with intervals."""
    from rich.console import Console

    from wsi_mil.compute import executor
    from wsi_mil.console import run_shown, show_outcomes, show_table
    from wsi_mil.errors import ConfigError
    from wsi_mil.stages import Work, study_of_model, validate_study

    if not all(one.strip().isdigit() and int(one) > 1 for one in local.split(",") if one):
        raise ConfigError(f"cannot read --local {local!r}: write numbers of patients, as in 10,20,50")
    given = [f"task.label={label}", "cohort.missing_labels=predict", *(settings or [])]
    study = study_of_model(model, slides=slides or "none", table=table, overrides=given)
    place, console, outcomes = Work(work.absolute(), study), Console(), []
    work.mkdir(parents=True, exist_ok=True)
    place.check_cohort()
    pixels = ["tissue", "tile", "extract"] if slides else []
    for name in [*pixels, "predict", "calibrate"]:
        outcomes += run_shown(name, place, executor("here"), console)
    show_outcomes(outcomes, console)
    columns = [one.strip() for one in groups.split(",") if one.strip()]
    numbers = validate_study(place, columns=columns, local=[int(one) for one in local.split(",") if one], draws=draws)
    rows = [
        (name, *(f"{one[key]:.3f}" for key in ("value", "low", "high")))
        for name, one in {**numbers["metrics"], **numbers["calibration"]["calibrated"], **numbers["decisions"]}.items()
    ]
    show_table(rows, ("metric", "value", "low", "high"), console, title="On this cohort, 95 % intervals")
    console.print(f"the page: {work / 'validate' / 'index.html'}", highlight=False, markup=False)


def sweep(
    sweep_file: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="A study and what varies in it.")],
    work: Annotated[Path, typer.Option("--work", "-w", help="Folder that everything is made in.")],
    on: Annotated[str, typer.Option("--on", help="Where work runs: here, processes:N, gpus or dask:ADDRESS.")] = "here",
    draws: Annotated[int, typer.Option("--draws", min=100, help="Resamples of the patients.")] = 1000,
) -> None:
    """Models, encoders and settings in every combination, one table, and the honest score of choosing among them."""
    from rich.console import Console

    from wsi_mil.compute import executor
    from wsi_mil.console import run_shown, show_table
    from wsi_mil.stages import CHOSEN, Work, read_sweep, score_sweep

    console, runner, ready = Console(), executor(on), {}
    work.mkdir(parents=True, exist_ok=True)
    for number, tried in enumerate(tried_all := read_sweep(sweep_file), 1):
        console.print(f"{number} of {len(tried_all)}: {tried.label}", highlight=False, markup=False)
        place = Work(work.absolute(), tried.study)
        place.check_cohort()
        stages = ("tissue", "tile", "extract", "split", "train", "predict")
        names = [name for name in stages if tried.study.cohort.slides != "none" or name in stages[3:]]
        ended = {name: run_shown(name, place, runner, console) for name in names}
        faults = [one.why for name in ("train", "predict") for one in ended[name] if one.kind == "failed"]
        if faults:
            console.print(f"left out of the comparison: {faults[0]}", highlight=False, markup=False)
        else:
            ready[tried.label] = place
    for found in score_sweep(sweep_file.stem, ready, draws=draws):
        measures = list(found.scores[CHOSEN])
        rows = [[label, *(_text(told[name]) for name in measures)] for label, told in found.scores.items()]
        title = f"{found.question or 'all'}: {found.leading} in front; 95 % intervals over patients"
        show_table(rows, ["model", *measures], console, title=title)
    console.print(
        f"'{CHOSEN}' is the score to report: in each fold the model was chosen by its loss on the select role. "
        "The best of the other rows was found by looking at the test folds, and flatters.",
        highlight=False,
    )
    console.print(f"written to {work / 'sweep' / sweep_file.stem}", highlight=False, markup=False)
    if len(ready) < len(tried_all):
        raise typer.Exit(1)


def unknown(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study of three classes or more.")],
    work: Annotated[Path, typer.Option("--work", "-w", help="Its work folder, in which the bags are.")],
    on: Annotated[str, typer.Option("--on", help="Where work runs: here, processes:N or dask:ADDRESS.")] = "here",
    settings: Annotated[list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings.")] = None,
) -> None:
    """Leave each class out in turn: would its slides be noticed as unknown? Needs calibrate.reject."""
    from rich.console import Console

    from wsi_mil.compute import executor
    from wsi_mil.console import run_shown, show_table
    from wsi_mil.stages import WITHOUT_STAGES, Work, load_study, score_without, works_without, write_scores

    console, runner, rows, failed = Console(), executor(on), [], 0
    place = Work(work.absolute(), load_study(study, settings or []))
    place.check_cohort()
    for name, other in works_without(place, study, settings or []):
        console.print(f"without {name}", highlight=False, markup=False)
        outcomes = [one for stage in WITHOUT_STAGES for one in run_shown(stage, other, runner, console)]
        faults = [one.why for one in outcomes if one.kind == "failed"]
        failed += bool(faults)
        if faults:
            console.print(f"left out of the table: {faults[0]}", highlight=False, markup=False)
        else:
            rows.append(score_without(name, other))
    if rows:
        table = write_scores(rows, place)
        counts = table.assign(**{name: table[name].round().astype(int).astype(str) for name in ("known", "unknown")})
        cells = [
            [one if isinstance(one, str) else f"{one:.3f}" for one in row] for row in counts.itertuples(index=False)
        ]
        headers = [str(name).replace("_", " ") for name in table.columns]
        show_table(cells, headers, console, title="Slides of the class left out against those of the others")
        console.print(f"written to {work / 'unknown' / 'table.csv'}", highlight=False, markup=False)
    if failed:
        raise typer.Exit(1)


def _text(value: Interval | Difference | None) -> str:
    return "" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _plain(value: Any) -> Any:
    """Records as plain values."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(inner) for name, inner in vars(value).items()}
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
