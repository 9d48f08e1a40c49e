"""Several questions at once: each part says what it would say alone, and a missing label touches no other part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.task import TaskContract

from wsi_mil.errors import TaskError
from wsi_mil.tasks import Classification, Joint, Multilabel, Ordinal, Regression, Survival

LABELS = {
    "S0": {"kind": "a", "area": "1", "grade": "1", "x": "1", "y": ""},
    "S1": {"kind": "b", "area": "", "grade": "2", "x": "0", "y": "1"},
    "S2": {"kind": "", "area": "3", "grade": "3", "x": "", "y": "0"},
    "S3": {"kind": "b", "area": "2", "grade": "", "x": "", "y": ""},
}
JOINT = Joint(
    (
        ("type", Classification("kind"), 1.0),
        ("size", Regression("area"), 2.0),
        ("grade", Ordinal("grade", objective="corn"), 0.5),
        ("signs", Multilabel(("x", "y")), 1.0),
    )
)


class TestFourParts(TaskContract):
    configured = JOINT
    labels = LABELS


class TestWithCox(TaskContract):
    configured = Joint((("fate", Survival(), 1.0), ("size", Regression("area"), 1.0)))
    labels = {  # noqa: RUF012
        f"S{row}": {"time": str(row + 1), "event": str(row % 2), "area": str(row)} for row in range(6)
    }


def test_the_loss_is_the_weighted_sum_over_known_labels() -> None:
    task = JOINT.fit(LABELS)
    slides = list(LABELS)
    logits = torch.randn(4, task.n_out, generator=torch.Generator().manual_seed(0))
    assert task.n_out == 2 + 1 + 2 + 2
    total, place = 0.0, 0
    for _, part, weight in task.parts:
        known = part.known(LABELS, slides)
        own = [slide for slide, one in zip(slides, known, strict=True) if one]
        rows = logits[torch.tensor(known)][:, place : place + part.n_out]
        total += weight * part.loss(rows, part.target(LABELS, own)).item() * len(own) / 4
        place += part.n_out
    assert task.loss(logits, task.target(LABELS, slides)).item() == pytest.approx(total, rel=1e-5)


def test_each_part_learns_from_its_own_labels() -> None:
    task = JOINT.fit(LABELS)
    assert task.parts[1][1] == Regression("area").fit({one: LABELS[one] for one in ("S0", "S2", "S3")})
    assert task.names == (
        "type_a", "type_b", "size_area", "grade_1", "grade_2", "grade_3", "grade_expected", "signs_x", "signs_y",
    )  # fmt: skip
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).numpy()
    answers = task.predict(logits)
    np.testing.assert_allclose(answers[:, 2:3], task.parts[1][1].predict(logits[:, 2:3]))
    assert task.called(answers)[0].count(";") == 3
    assert task.shown(answers[0]) == "type_b"


def test_a_fault_names_its_part() -> None:
    with pytest.raises(TaskError, match="part 'size': all training slides have the same 'area'"):
        JOINT.fit({slide: {**row, "area": "1"} for slide, row in LABELS.items()})
    with pytest.raises(TaskError, match="no parts"):
        Joint().fit(LABELS)


def test_the_parts_settle_on_what_each_needs_of_the_training() -> None:
    with_cox = Joint((("fate", Survival(), 1.0), ("size", Regression("area"), 1.0), ("type", Classification(), 1.0)))
    assert with_cox.recipe == {"batch_bags": 16, "lr": 1e-3}
    assert with_cox.least_bags == 2
    assert Joint((("type", Classification(), 1.0),)).recipe == {}
