"""What every question must keep; a task inherits all of it by giving one of itself and labels that fit."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from wsi_mil.errors import TaskError
from wsi_mil.tasks import Task, task_from_json


class TaskContract:
    """Inherit and give `configured` (before fit) and `labels` (of the training slides)."""

    configured: ClassVar[Task]
    labels: ClassVar[dict[str, dict[str, str]]]

    @property
    def task(self) -> Task:
        return self.configured.fit(self.labels)

    def logits(self, count: int) -> torch.Tensor:
        return torch.randn(count, self.task.n_out, generator=torch.Generator().manual_seed(0))

    def test_it_says_what_it_is(self) -> None:
        assert self.task.kind
        assert self.task.metrics
        assert self.task.columns
        assert len(set(self.task.names)) == len(self.task.names) > 0

    def test_fit_leaves_the_configured_task(self) -> None:
        before = self.configured.to_json()
        _ = self.task
        assert self.configured.to_json() == before

    def test_json_and_back(self) -> None:
        task = self.task
        again = task_from_json(json.loads(json.dumps(task.to_json())))
        assert again == task
        slides = list(self.labels)
        assert torch.equal(again.target(self.labels, slides), task.target(self.labels, slides))

    def test_the_loss_is_a_mean_over_bags(self) -> None:
        slides = list(self.labels)
        target, logits = self.task.target(self.labels, slides), self.logits(len(slides))
        whole = self.task.loss(logits, target)
        parts = [self.task.loss(logits[row : row + 1], target[row : row + 1]) for row in range(len(slides))]
        torch.testing.assert_close(whole, torch.stack(parts).mean())
        assert whole.shape == ()
        assert torch.isfinite(whole)

    def test_the_loss_falls_along_its_gradient(self) -> None:
        target = self.task.target(self.labels, list(self.labels))
        logits = self.logits(len(target)).requires_grad_()
        loss = self.task.loss(logits, target)
        loss.backward()
        assert self.task.loss(logits.detach() - 0.1 * logits.grad, target) < loss

    def test_answers_have_a_column_for_each_name(self) -> None:
        logits = self.logits(7).numpy()
        answers = self.task.predict(logits)
        assert answers.shape == (7, len(self.task.names))
        assert np.isfinite(answers).all()
        assert self.task.scores(logits).shape == (7, len(self.task.names))

    def test_huge_logits_give_finite_answers(self) -> None:
        assert np.isfinite(self.task.predict(1e4 * self.logits(7).numpy())).all()

    def test_a_slide_without_labels_is_named(self) -> None:
        with pytest.raises(TaskError, match="slide 'Z9'"):
            self.task.target(self.labels, ["Z9"])

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(TaskError, match=self.task.columns[0]):
            self.task.target({"Z9": {"other": "1"}}, ["Z9"])
