"""What a training run tells: a line an epoch, a line at its end, and the same in MLflow where it is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import run_stage

from wsi_mil import files
from wsi_mil.stages import Work
from wsi_mil.stages.ledger import chain


def _lines(work: Work, name: str = "seed-0-fold-0") -> list[dict[str, Any]]:
    text = (work.root / "train" / "abmil" / "log" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_epoch_and_every_run_has_a_line(tmp_path: Path) -> None:
    work = bag_study(tmp_path, slides=16)
    through(work, "split", "train")
    lines = _lines(work)
    history = pd.read_csv(work.root / "train" / "abmil" / "seed-0" / "fold-0" / "history.csv")
    assert [one["event"] for one in lines] == ["epoch"] * len(history) + ["run"]
    assert [one["fit_loss"] for one in lines[:-1]] == pytest.approx(list(history["fit_loss"]))
    assert [one["select_loss"] for one in lines[:-1]] == pytest.approx(list(history["select_loss"]))
    digest = files.digest_json(chain(work.stage("train"), work))
    assert {(one["run"], one["configuration"]) for one in lines} == {("seed-0/fold-0", digest)}
    assert lines[-1]["outcome"] == "made"
    assert lines[-1]["epochs"] == len(history)
    assert lines[-1]["seconds"] >= lines[0]["seconds"] >= 0
    through(work, "train")
    assert len(_lines(work)) == len(lines), "a run that is found tells nothing"


def test_a_run_that_fails_leaves_its_reason(tmp_path: Path) -> None:
    work = bag_study(tmp_path, slides=12)
    through(work, "split")
    work = with_settings(work, "model.name=hierarchical", "model.options={}")
    ended = run_stage(work, "train")
    assert {one.kind for one in ended} == {"failed"}
    for one in ended:
        path = work.root / "train" / "hierarchical" / "log" / f"{one.item.replace('/', '-')}.jsonl"
        last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        assert (last["outcome"], last["why"]) == ("failed", one.why)


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    work = bag_study(tmp_path, "runtime.tracker=mlflow", slides=12)
    through(work, "split")
    assert "pip install 'wsi_mil[mlflow]'" in run_stage(work, "train")[0].why


def test_mlflow_keeps_the_same_numbers_offline(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    work = bag_study(tmp_path, "runtime.tracker=mlflow", slides=16)
    through(work, "split", "train")
    client = mlflow.MlflowClient(tracking_uri=(work.root / "mlruns").as_uri())
    experiment = client.get_experiment_by_name(work.root.name)
    runs = client.search_runs([experiment.experiment_id])
    assert {one.info.run_name for one in runs} == {"abmil/seed-0/fold-0", "abmil/seed-0/fold-1"}
    one = next(run for run in runs if run.info.run_name.endswith("fold-0"))
    assert one.info.status == "FINISHED"
    assert one.data.params["train.epochs"] == "4"
    told = [line["fit_loss"] for line in _lines(work)[:-1]]
    assert [point.value for point in client.get_metric_history(one.info.run_id, "fit_loss")] == pytest.approx(told)
