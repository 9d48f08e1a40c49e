"""Survival: both losses against hand-made sums and lifelines, risk sets, ties, bins, censoring and baselines."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from contracts.task import TaskContract

from wsi_mil.errors import TaskError
from wsi_mil.tasks import Survival

TIMES = ["1", "2", "2", "3.5", "4", "5", "5", "7"]
EVENTS = ["1", "1", "1", "0", "1", "1", "0", "0"]
LABELS = {
    f"S{row}": {"time": time, "event": event} for row, (time, event) in enumerate(zip(TIMES, EVENTS, strict=True))
}


class TestCox(TaskContract):
    configured = Survival(horizons=(2.0, 4.5))
    labels = LABELS


class TestDiscrete(TaskContract):
    configured = Survival(objective="discrete", horizons=(2.0, 4.5, 99.0))
    labels = LABELS


class TestRiskAlone(TaskContract):
    configured = Survival(objective="discrete", bins=2)
    labels = LABELS


def _fitted_by_lifelines() -> tuple[float, float, pd.DataFrame, np.ndarray]:
    """Coefficient and log likelihood of one covariate, the baseline survival, and the covariate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifelines import CoxPHFitter

        x = np.array([0.3, 1.2, -0.4, 0.1, -0.8, 0.5, -1.0, -0.2])
        frame = pd.DataFrame({"t": np.array(TIMES, float), "e": np.array(EVENTS, int), "x": x})
        fitter = CoxPHFitter().fit(frame, "t", "e")
        return float(fitter.params_["x"]), float(fitter.log_likelihood_), fitter.predict_survival_function(frame), x


def test_the_cox_loss_is_lifelines_partial_likelihood_with_ties() -> None:
    slope, log_likelihood, _, x = _fitted_by_lifelines()
    task = Survival().fit(LABELS)
    target = task.target(LABELS, list(LABELS))
    logits = torch.tensor(slope * x, dtype=torch.float64)[:, None]
    assert task.loss(logits, target).item() * len(x) == pytest.approx(-log_likelihood, rel=1e-6)
    free = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
    task.loss(free * torch.tensor(x)[:, None], target).backward()
    assert abs(free.grad.item()) < 1e-5  # lifelines' slope is where our loss is flat


def test_the_risk_set_is_who_was_still_there() -> None:
    task = Survival().fit(LABELS)
    target = torch.tensor([[1.0, 0.0], [2.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
    logits = torch.tensor([[5.0], [0.5], [-1.0], [2.0]], requires_grad=True)
    by_hand = np.log(np.exp(0.5) + np.exp(-1.0) + np.exp(2.0)) - 0.5  # the last event is alone and costs nothing
    loss = task.loss(logits, target)
    assert loss.item() * 4 == pytest.approx(by_hand, rel=1e-5)
    loss.backward()
    assert logits.grad[0].item() == 0  # gone before the first event


def test_far_risks_keep_finite_gradients() -> None:
    task = Survival().fit(LABELS)
    logits = (1e3 * torch.arange(8.0))[:, None].requires_grad_()
    task.loss(logits, task.target(LABELS, list(LABELS))).backward()
    assert torch.isfinite(logits.grad).all()


def test_bags_without_an_event_pull_nowhere() -> None:
    task = Survival().fit(LABELS)
    logits = torch.randn(3, 1, requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    task.loss(logits, target).backward()
    assert (logits.grad == 0).all()
    assert not task.can_judge(target)
    assert not task.can_judge(torch.tensor([[1.0, 0.0], [2.0, 1.0]]))  # nobody outlived the event
    assert task.can_judge(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))


def test_survival_at_horizons_is_breslows() -> None:
    _, _, _, x = _fitted_by_lifelines()
    task = Survival(horizons=(0.5, 2.0, 4.5)).fit(LABELS)
    target = task.target(LABELS, list(LABELS))
    task = task.settle(x[:, None].astype(np.float32), target)
    answers = task.predict(x[:, None].astype(np.float32))
    hazards = np.exp(x - x.mean())
    times, events = target[:, 0].numpy(), target[:, 1].numpy()
    steps = {one: (events * (times == one)).sum() / hazards[times >= one].sum() for one in np.unique(times)}
    for column, horizon in enumerate(task.horizons):
        total = sum(step for time, step in steps.items() if time <= horizon)
        np.testing.assert_allclose(answers[:, column], np.exp(-total * hazards), rtol=1e-5)
    np.testing.assert_allclose(answers[:, -1], x - x.mean(), atol=1e-6)
    with pytest.raises(TaskError, match="before settle"):
        Survival(horizons=(1.0,)).fit(LABELS).predict(np.zeros((1, 1), np.float32))


def test_discrete_time_by_hand() -> None:
    task = Survival(objective="discrete", bins=2).fit(LABELS)
    assert task.cuts == (0.0, 2.0, 7.0)  # the median event is at 2 and the last patient at 7
    target = task.target(LABELS, list(LABELS))
    # 2 begins the second bin, whose middle is 4.5: censored at 3.5 did not survive it, censored at 5 and 7 did.
    assert target.tolist() == [[0, 1], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1], [2, 0], [2, 0]]
    logits = torch.tensor([[0.3, -0.7]]).repeat(8, 1)
    first, second = (1 / (1 + np.exp(-value)) for value in (0.3, -0.7))
    logs = [np.log(first)] + [np.log(1 - first) + np.log(second)] * 4 + [np.log(1 - first)]
    logs += [np.log(1 - first) + np.log(1 - second)] * 2
    assert task.loss(logits, target).item() == pytest.approx(-np.mean(logs), rel=1e-5)
    answers = (
        Survival(objective="discrete", bins=2, horizons=(1.0, 2.0, 7.0, 50.0))
        .fit(LABELS)
        .predict(logits[:1].numpy())[0]
    )
    whole = (1 - first) * (1 - second)
    np.testing.assert_allclose(answers[:4], [(1 - first) ** 0.5, 1 - first, whole, whole], rtol=1e-6)


def test_risk_is_told_against_the_fit_role() -> None:
    task = Survival(objective="discrete").fit(LABELS)
    logits = np.random.default_rng(0).normal(size=(8, task.n_out)).astype(np.float32)
    task = task.settle(logits, task.target(LABELS, list(LABELS)))
    risk = task.predict(logits)[:, -1]
    assert risk.mean() == pytest.approx(0, abs=1e-9)
    assert (task.predict(logits + 1)[:, -1] > risk).all()
    assert set(task.called(task.predict(logits))) == {"high", "low"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "0"), ("2", "0")], "all 2 training slides are censored"),
        ([("2", "1"), ("2", "0")], "same 'time'"),
        ([("-1", "1"), ("2", "0")], "S0: '-1'"),
        ([("1", "2"), ("2", "0")], "S0: '2'"),
        ([("soon", "1"), ("2", "0")], "S0: 'soon'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(rows: list[tuple[str, str]], message: str) -> None:
    labels = {f"S{row}": {"time": time, "event": event} for row, (time, event) in enumerate(rows)}
    with pytest.raises(TaskError, match=message):
        Survival().fit(labels)
