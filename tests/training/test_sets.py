"""Losses that compare bags: steps that are large enough, a select role that can judge, a baseline of the fit role."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.tasks import Survival
from wsi_mil.training import Bags, FitSettings, Fitted, fit, settled
from wsi_mil.training.fitting import steps_of

RANDOM = np.random.default_rng(0)
BAGS = Bags([(RANDOM.normal(size=(6, 4)).astype(np.float32), np.zeros((6, 2), np.int64)) for _ in range(12)])
LABELS = {f"S{row}": {"time": str(row + 1), "event": str(int(row % 3 > 0))} for row in range(12)}
TASK = Survival(horizons=(4.0,)).fit(LABELS)
TARGETS = TASK.target(LABELS, list(LABELS))
FIT, SELECT = list(range(8)), list(range(8, 12))


def _fit(targets: torch.Tensor, **settings: object) -> Fitted:
    model = build_model("mean", dim=4, n_out=1)
    return fit(
        model,
        BAGS,
        fit_index=FIT,
        select_index=SELECT,
        targets=targets,
        task=TASK,
        settings=FitSettings(**{"epochs": 3, "batch_bags": 3, **settings}),  # type: ignore[arg-type]
        seed=0,
    )


def test_a_last_step_that_is_too_small_joins_the_one_before() -> None:
    order = [4, 2, 0, 1, 3]
    assert steps_of(order, 2, least=1) == [[4, 2], [0, 1], [3]]
    assert steps_of(order, 2, least=2) == [[4, 2], [0, 1, 3]]
    assert steps_of(order, 3, least=2) == [[4, 2, 0], [1, 3]]
    assert steps_of([7], 3, least=2) == [[7]]


def test_the_epoch_is_chosen_on_the_select_role_as_one_set() -> None:
    fitted = _fit(TARGETS)
    assert fitted.chosen_by == "lowest loss on the select role"
    assert all(row["select_loss"] > 0 for row in fitted.history)  # bag by bag a Cox loss would be 0


def test_a_select_role_without_a_comparable_event_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    censored = TARGETS.clone()
    censored[SELECT, 1] = 0
    with caplog.at_level(logging.WARNING, logger="wsi_mil"):
        fitted = _fit(censored)
    assert fitted.chosen_by.startswith("last epoch")
    assert "cannot tell a better model" in caplog.text


def test_a_step_of_one_bag_is_refused() -> None:
    with pytest.raises(ModelError, match="compares bags and needs 2 or more: set train.batch_bags to 16"):
        _fit(TARGETS, batch_bags=1)


def test_the_baseline_comes_from_the_fit_role_alone() -> None:
    model = build_model("mean", dim=4, n_out=1).eval()
    task = settled(TASK, model, BAGS, index=FIT, targets=TARGETS)
    assert isinstance(task, Survival)
    assert len(task.baseline) == 1
    assert task.baseline[0] > 0
    other = TARGETS.clone()
    other[SELECT] = torch.tensor([0.5, 1.0])
    assert settled(TASK, model, BAGS, index=FIT, targets=other) == task
    other[FIT, 1] = 0
    assert settled(TASK, model, BAGS, index=FIT, targets=other) != task
