"""Every aggregator on real tissue with tile-level truth: invasive ductal carcinoma, one grid, one table.

    WSI_MIL_TEST_DATA=DATA python benchmarks/idc.py --work work --grid tiles_needle.csv [--models a,b] [--seeds 3]

Offline encoder, five patient-grouped folds, slide labels alone in training, default options, each model's own recipe; a
model without one takes eight slides a step at a rate of 5e-4: three times as fast as one slide at 1e-4, the study's,
where a slide has 8 tiles (18 in tiles.csv), and as good on the select role (loss of abmil, seed 0: .616 against .624).
A row a model: slide AUROC of single seeds (mean and range), of the mean of the seeds with its patient-bootstrap
interval, its paired difference to bag statistics (logistic regression) and to the model `mean`, and the mean over
slides of the tile AUROC of the heatmap (contributions where the model tells them, else raw scores). Below stand what
needs no MIL. Only about one tile in eight has a neighbour here: no ground for ranking spatial models. Run again, it
goes on from where it was.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd

from wsi_mil.compute import executor
from wsi_mil.evaluation import Interval, paired_difference
from wsi_mil.models import MODELS
from wsi_mil.stages import Work, load_study, run
from wsi_mil.stages.evaluate import Evaluation, evaluate
from wsi_mil.stages.truth import Truth

STUDY = Path(__file__).parents[1] / "configs" / "idc.yaml"
FIRST = ("mean", "stats", "max", "abmil")
"""Others are compared with the first, so that it is made first."""
BAG_STATISTICS = "bag statistics"
TWO_SCALES = ("lca_db",)


def main() -> None:
    """Run every model and print a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--grid", default="tiles_needle.csv")
    parser.add_argument("--models", default=",".join([*FIRST, *sorted(set(MODELS) - set(FIRST))]))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--on", default="here")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    data = Path(os.environ["WSI_MIL_TEST_DATA"]).absolute() / "idc"
    root = arguments.work.absolute() / f"aggregators_{Path(arguments.grid).stem}"
    root.mkdir(parents=True, exist_ok=True)
    cohort = pd.read_csv(data / "cohort.csv", dtype=str)
    cohort[cohort["kind"] == "part"].to_csv(root / "part.csv", index=False)
    truth = Truth(data / arguments.grid)
    print(f"{arguments.grid}: {int((cohort['kind'] == 'part').sum())} slides, {arguments.seeds} seed(s)")
    print("| model | one seed (range) | mean of seeds (95 %) | less bag statistics | less `mean` | tile AUROC |")
    print("|---|---|---|---|---|---|", flush=True)
    last, mean = None, None
    for name in arguments.models.split(","):
        work = open_work(root, data, name, grid=arguments.grid, seeds=arguments.seeds)
        told, why = one_model(work, on=arguments.on, draws=arguments.draws, truth=truth)
        if told is None:
            print(f"| `{name}` | {why} | | | | |", flush=True)
            continue
        last, mean = told, told if name == "mean" else mean
        print(row(name, told, mean, draws=arguments.draws), flush=True)
    if last is not None:
        for line in rows_below(last):
            print(line)


def open_work(root: Path, data: Path, name: str, *, grid: str, seeds: int) -> Work:
    """The study of one model; all share tiles, features and folds, but for the one that reads every tile twice."""
    settings = [
        *(["tile.mpp=[4.0, 16.0]"] if name in TWO_SCALES else []),
        f"cohort.table={root / 'part.csv'}",
        f"tile.table={data / grid}",
        f"model.name={name}",
        f"train.seeds={list(range(seeds))}",
        *([] if MODELS[name].recipe else ["train.batch_bags=8", "train.lr=0.0005"]),
        "heatmap.export=[]",
        "runtime.threads=1",
    ]
    work = Work(root / "two_scales" if name in TWO_SCALES else root, load_study(STUDY, settings))
    work.check_cohort()
    return work


def one_model(work: Work, *, on: str, draws: int, truth: Truth) -> tuple[Evaluation | None, str]:
    """All stages up to the heatmaps, then the numbers; or None and the first fault."""
    for stage in ("tissue", "tile", "extract", "split", "train", "predict", "heatmap"):
        for outcome in run(work.stage(stage), work, executor(on)):
            if outcome.kind == "failed":
                return None, f"{stage}: {outcome.why}"
    return evaluate(work, draws=draws, truth=truth), ""


def row(name: str, told: Evaluation, mean: Evaluation | None, *, draws: int) -> str:
    """One line of the table."""
    seeds = list(told.seeds.values())
    auroc = told.slides.metrics["auroc"]
    to_mean = "–"
    if mean is not None and name != "mean":
        order = [mean.slides.names.index(slide) for slide in told.slides.names]
        to_mean = signed(
            paired_difference(
                "auroc",
                told.slides.truth,
                told.slides.probabilities,
                mean.slides.probabilities[order],
                told.slides.patients,
                draws=draws,
            )
        )
    local = next(iter(told.localisation.values()))
    channel = next(iter(local))
    return (
        f"| `{name}` | {np.mean(seeds):.3f} ({min(seeds):.3f} to {max(seeds):.3f}) | {plain(auroc)} "
        f"| {signed(told.differences[BAG_STATISTICS])} | {to_mean} | {local[channel].mean_auroc:.3f} ({channel}) |"
    )


def rows_below(told: Evaluation) -> list[str]:
    """What needs no multiple-instance learning, in the same folds, and tile scores that know less."""
    lines = [f"| {name} | | {plain(interval)} | | | |" for name, interval in told.baselines.items()]
    local = next(iter(told.localisation.values()))
    return lines + [
        f"| {name} | | | | | {one.mean_auroc:.3f} |"
        for name, one in local.items()
        if not name.startswith(("contribution", "attention"))
    ]


def plain(interval: Interval) -> str:
    """Value and interval."""
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def signed(interval: Interval) -> str:
    """A difference and its interval."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


if __name__ == "__main__":
    main()
