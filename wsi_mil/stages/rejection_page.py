"""The part of the report about slides that are not answered: how many, of which class and site, what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wsi_mil import files, training
from wsi_mil.evaluation import RiskCoverage, bootstrap_mean, risk_coverage
from wsi_mil.report import Curve, Figure, Part, TableView, curve_figure, interval_text
from wsi_mil.stages import ledger
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.leave_out import FOLDER, TABLE
from wsi_mil.stages.rejecting import LIMITS, STATE

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

SHARES = (0.5, 0.7, 0.8, 0.9, 1.0)
"""Of the cases answered, in the table."""

FEW = 1.0
"""Patients expected beyond a limit, below which the limit is hardly more than the highest score seen."""


def part(work: Work, draws: int = 500) -> list[Part]:
    """Nothing where no slide is rejected by choice; a sentence where it was asked for and could not be done."""
    folder = work.stage("calibrate").folder(work)
    told = ledger.read_record(work.stage("calibrate"), "slides", work)
    said = str(told["facts"].get("reject", "")) if told and told["facts"] else ""
    if said.startswith("no slide"):
        return [Part("Slides that are not answered", f"{said[0].upper()}{said[1:]}.")]
    if not (folder / STATE / LIMITS).exists() or not (folder / "slides.csv").exists():
        return []
    table = read_predicted(folder / "slides.csv")
    if "novelty" not in table:
        return []
    record = files.read_json(folder / STATE / LIMITS)
    tested = table[(table["part"] == "cross-validation") & (table["label"] != "") & (table["rejected"] != "")]
    tables, figures = [], []
    tables.append(TableView(["slides", "judged", "rejected", "share"], _counted(table), caption="Who is rejected"))
    if len(tested) > 1:
        right = (tested["decision"] == tested["label"]).to_numpy()
        curves = curves_of(tested, right)
        figures = [Figure(_drawn(curves))]
        rows = _answered(tested, right, draws)
        tables.append(TableView(["decisions", "slides", "accuracy"], rows, caption="How often the decisions are right"))
        rows = [[f"{share:.0%}", *(f"{_at(one, share):.3f}" for one in curves.values())] for share in SHARES]
        headers = ["share answered", *(f"accuracy, by {name}" for name in curves)]
        tables.append(TableView(headers, rows, caption="If the most doubtful are left out"))
    tables += _left_out(work)
    return [Part("Slides that are not answered", _text(record), figures=figures, tables=tables)]


def digest(work: Work) -> str:
    """Changes with what `wsi-mil unknown` measured; empty where it was not run."""
    path = work.root / FOLDER / TABLE
    return files.digest_file(path) if path.exists() else ""


def curves_of(tested: pd.DataFrame, right: np.ndarray) -> dict[str, RiskCoverage]:
    """Risk against coverage by the study's score, and by the highest calibrated probability for comparison."""
    answers = [name for name in tested.columns if name.startswith("calibrated_")]
    doubt = 1 - tested[answers].to_numpy(np.float64).max(axis=1)
    return {
        "novelty": risk_coverage(tested["novelty"].to_numpy(np.float64), right),
        "probability": risk_coverage(doubt, right),
    }


def _text(record: dict[str, Any]) -> str:
    limits = list(record["models"].values())
    few = min(one["patients"] for one in limits)
    score, rate = record["score"], record["rate"]
    text = (
        "A slide that looks unlike those the models know is rejected, and not answered: its novelty is above 0, which "
        f"is by how many spreads of known slides it lies above a limit. It is measured by the score “{score}” "
        f"({training.KINDS[score].told}), fitted on the fit role; {record['source']}, so that {rate:.0%} of known "
        "patients are lost. Of slides of unknown kinds nothing is promised: `wsi-mil unknown` leaves each class out in "
        "turn and measures it. The area in the figure is the mean error over all shares: lower is better."
    )
    if record["source"] == "cross-fitted":
        text += " Cross-fitted limits compare the scores of different models: they hold only about."
    if few * rate < FEW:
        text += (
            f" A limit was set on {few} patients, too few to tell their highest {rate:.0%}: it is their highest score."
        )
    return text


def _counted(table: pd.DataFrame) -> list[list[str]]:
    judged = table[table["rejected"] != ""]
    groups = {"all": judged}
    known = judged["part"] == "cross-validation"
    groups |= {"cross-validation": judged[known], "new": judged[~known]} if known.any() and (~known).any() else {}
    groups |= {"class " + str(name) if name else "without a label": one for name, one in judged.groupby("label")}
    if judged["site"].nunique() > 1:
        groups |= {"site " + str(name or "unknown"): one for name, one in judged.groupby("site")}
    rows = []
    for name, part_ in groups.items():
        out = int((part_["rejected"] == "yes").sum())
        rows.append([name, str(len(part_)), str(out), f"{out / len(part_):.0%}"])
    return rows


def _left_out(work: Work) -> list[TableView]:
    """What `wsi-mil unknown` measured, where it was run."""
    path = work.root / FOLDER / TABLE
    if not path.exists():
        return []
    rows = [
        [one["left_out"], f"{one['unknown']:.0f}", f"{one['auroc']:.3f}", *(f"{one[name]:.0%}" for name in _REJECTED)]
        for one in pd.read_csv(path, dtype={"left_out": str}, keep_default_na=False).to_dict("records")
    ]
    headers = ["left out", "its slides", "AUROC of telling them", "of them rejected", "of the known rejected"]
    return [TableView(headers, rows, caption="Each class left out in turn: would its slides be noticed?")]


_REJECTED = ("rejected_unknown", "rejected_known")


def _answered(tested: pd.DataFrame, right: np.ndarray, draws: int) -> list[list[str]]:
    kept = (tested["rejected"] == "no").to_numpy()
    rows = []
    for name, here in (("all", np.ones(len(kept), bool)), ("answered", kept), ("rejected", ~kept)):
        if here.any():
            told = bootstrap_mean(right[here].astype(np.float64), _patients(tested, here), draws=draws)
            rows.append([name, str(int(here.sum())), interval_text(told.value, told.low, told.high)])
    return rows


def _patients(tested: pd.DataFrame, here: np.ndarray) -> Sequence[str]:
    return list(tested["patient"][here].astype(str))


def _at(curve: RiskCoverage, share: float) -> float:
    """Accuracy where at least this share is answered."""
    return float(curve.accuracy[int(np.searchsorted(curve.share, share - 1e-9))])


def _drawn(curves: dict[str, RiskCoverage]) -> str:
    lines = [Curve(f"{name} (area {one.area:.3f})", one.share, one.accuracy) for name, one in curves.items()]
    return curve_figure(lines, title="Accuracy of what is answered", x="share answered", y="accuracy", chance=None)
