"""Leave one class out: how well a study's models would notice slides of a kind that they were never shown.

Each class in turn is kept from training, selection and calibration: its slides are new ones without a class, judged by
the models of all folds. Nothing is chosen by looking at them, so that no kind of unknown is both tuned and tested on.

Known and unknown slides are told apart fold by fold, under the same models: the tested slides of a fold against all
unknown ones. A mean over all folds' models varies less than one fold's, so that the two could not be set side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.evaluation import open_f1, open_set
from wsi_mil.layout import folder_name
from wsi_mil.stages.calibrate import NOVELTY, read_predicted
from wsi_mil.stages.study import load_study
from wsi_mil.stages.trained import trained_models
from wsi_mil.stages.work import Work

if TYPE_CHECKING:
    from wsi_mil.stages.study import Study

FOLDER, TABLE = "unknown", "table.csv"

UNKNOWN = "unknown"
"""What a rejected slide is called among the classes."""

WITHOUT_STAGES = ("split", "train", "predict", "calibrate")


def works_without(work: Work, path: Path, settings: Sequence[str]) -> Iterator[tuple[str, Work]]:
    """For each class its name, and a work folder unknown/CLASS/ on the same bags in which it takes no part.

    `path` and `settings` are what the study was loaded from. Raises StageError where the task is not classification,
    has fewer than three classes, or `calibrate.reject` is none.
    """
    task = work.study.task
    if task.kind != "classification":
        raise StageError(f"the task is {task.kind}: only classes can be left out")
    if work.study.calibrate.reject == "none":
        raise StageError("nothing is rejected: set calibrate.reject, such as calibrate.reject=combo")
    found = work.labelled()["label"]
    classes = list(task.classes) or sorted(set(found))
    if len(classes) < 3:
        raise StageError(
            f"{task.label!r} has {len(classes)} classes: with one left out two must remain, so three are needed"
        )
    for name in classes:
        folder = work.root / FOLDER / folder_name(name)
        rest = [one for one in classes if one != name]
        study = load_study(
            path, [*settings, "task.classes=[]", "task.positive=''", f"split.where={_where(work, rest)}"]
        )
        yield name, _linked(work, folder, study)


def _where(work: Work, classes: Sequence[str]) -> str:
    import yaml

    told = {**work.study.split.where, work.study.task.label: list(classes)}
    plain = {
        name: [str(one) for one in wanted] if isinstance(wanted, (list, tuple)) else wanted
        for name, wanted in told.items()
    }
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6).strip()


def _linked(work: Work, folder: Path, study: Study) -> Work:
    """A work folder that reads the same bags: extract/ is a link."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "extract"
    if not link.exists():
        link.symlink_to(Path("..") / ".." / "extract", target_is_directory=True)
    other = Work(folder, study)
    other.check_cohort()
    return other


def score_without(name: str, work: Work) -> dict[str, Any]:
    """Measures of the class left out against the tested slides of the others, once all stages have run.

    AUROC, average precisions, FPR at 95 % TPR and OSCR are means over the folds. What is rejected is what all models
    that may speak of a slide decide together: of a tested slide those of its fold, of an unknown one all.
    """
    table = read_predicted(work.stage("calibrate").folder(work) / "slides.csv")
    if "novelty" not in table:
        raise StageError(f"without {name!r} no limit could be set: see the record of calibrate in {work.root}")
    judged = table[table["rejected"] != ""]
    known = judged[judged["part"] == "cross-validation"]
    unknown = judged[(judged["part"] == "new") & (judged["label"] == name)]
    right = (known["decision"] == known["label"]).to_numpy()
    told = _mean_over_folds(known, unknown, _by_fold(work))
    called = pd.concat([known, unknown])
    said = [
        UNKNOWN if out == "yes" else str(one) for out, one in zip(called["rejected"], called["decision"], strict=True)
    ]
    truth = [UNKNOWN if one == name else str(one) for one in called["label"]]
    kept = known["rejected"] == "no"
    return {
        "left_out": name,
        **told,
        "rejected_known": float((~kept).mean()),
        "rejected_unknown": float((unknown["rejected"] == "yes").mean()),
        "accuracy": float(right.mean()),
        "accuracy_answered": float(right[kept.to_numpy()].mean()) if kept.any() else float("nan"),
        "macro_f1": open_f1(truth, said),
    }


def _by_fold(work: Work) -> dict[tuple[int, int], pd.Series]:
    """Novelty by slide of each fold's models, mean over seeds, by repeat and fold."""
    path = work.stage("calibrate").folder(work) / NOVELTY
    if not path.exists():
        raise StageError(f"{path} is missing: run `wsi-mil calibrate` there again")
    rows = pd.read_csv(path, dtype={"slide": str, "model": str})
    places = {one.name: (one.repeat or 0, one.fold or 0) for one in trained_models(work)}
    found = {}
    for place in dict.fromkeys(places.values()):
        own = rows[rows["model"].map(places) == place]
        found[place] = own.groupby("slide")["novelty"].mean()
    return found


def _mean_over_folds(
    known: pd.DataFrame, unknown: pd.DataFrame, novelty: Mapping[tuple[int, int], pd.Series]
) -> dict[str, float]:
    """The measures of each fold's models, averaged; `known` and `unknown` count slides of all folds together."""
    right, told = known.set_index("slide")["decision"] == known.set_index("slide")["label"], []
    for values in novelty.values():
        own = values.reindex(right.index).dropna()
        other = values.reindex(unknown["slide"]).dropna()
        if len(own):
            told.append(vars(open_set(own.to_numpy(), right[own.index].to_numpy(), other.to_numpy())))
    means = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
    return {**means, "known": len(known), "unknown": len(unknown)}


def write_scores(rows: Sequence[dict[str, Any]], work: Work) -> pd.DataFrame:
    """unknown/table.csv: a row for each class left out, and their mean."""
    table = pd.DataFrame(rows)
    mean = table.drop(columns="left_out").mean().to_dict()
    table = pd.concat([table, pd.DataFrame([{"left_out": "mean", **mean}])], ignore_index=True)
    files.write_text(work.root / FOLDER / TABLE, table.to_csv(index=False))
    return table
