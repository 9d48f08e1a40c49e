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
        """Fitted, and settled on some outputs where it needs that."""
        task = self.configured.fit(self.labels)
        if not task.settles:
            return task
        logits = torch.linspace(-1, 1, len(self.labels) * task.n_out).reshape(len(self.labels), task.n_out)
        return task.settle(logits.numpy(), task.target(self.labels, list(self.labels)))

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
        before, after = task.target(self.labels, slides), again.target(self.labels, slides)
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)

    def test_the_loss_is_a_mean_over_bags(self) -> None:
        slides = list(self.labels)
        target, logits = self.task.target(self.labels, slides), self.logits(len(slides))
        whole = self.task.loss(logits, target)
        if self.task.least_bags > 1:  # a loss that compares bags: nothing to say of one, and no order among several
            back = torch.arange(len(slides) - 1, -1, -1)
            torch.testing.assert_close(whole, self.task.loss(logits[back], target[back]))
            return
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

    def test_every_answer_has_a_word_and_a_map(self) -> None:
        answers = self.task.predict(self.logits(7).numpy())
        assert all(isinstance(word, str) and word for word in self.task.called(answers))
        assert self.task.shown(answers[0]) in self.task.names

    def test_labels_are_known_to_learn_from(self) -> None:
        slides = list(self.labels)
        assert all(self.task.known(self.labels, slides))
        assert self.task.can_judge(self.task.target(self.labels, slides))
        bare = {"S0": dict.fromkeys(self.task.columns, "")}
        assert self.task.known(bare, ["S0"]) == [False]

    def test_names_hang_on_the_whole_table_and_no_more(self) -> None:
        named = self.configured.named(self.labels)
        assert named.names == self.task.names
        assert named.fit(self.labels) == self.configured.fit(self.labels)

    def test_huge_logits_give_finite_answers(self) -> None:
        assert np.isfinite(self.task.predict(1e4 * self.logits(7).numpy())).all()

    def test_a_slide_without_labels_is_named(self) -> None:
        with pytest.raises(TaskError, match="slide 'Z9'"):
            self.task.target(self.labels, ["Z9"])

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(TaskError, match=self.task.columns[0]):
            self.task.target({"Z9": {"other": "1"}}, ["Z9"])
