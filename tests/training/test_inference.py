"""The forward pass behind predictions and heatmaps, and where it reads from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, build_model
from wsi_mil.training import Bags, infer, predict_many

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(30, 6)).astype(np.float32)
CELLS = np.stack([np.arange(30) % 6, np.arange(30) // 6], axis=1)


@pytest.fixture
def model() -> MIL:
    return build_model("abmil", dim=6, n_out=2, hidden=8, attention=4, dropout=0.5)


def test_dropout_is_off_and_the_mode_is_left(model: MIL) -> None:
    model.train()
    first, second = infer(model, FEATURES, CELLS), infer(model, FEATURES, CELLS)
    assert np.array_equal(first.logits, second.logits)
    assert model.training


def test_parts_add_up(model: MIL) -> None:
    answer = infer(model, FEATURES, CELLS)
    assert answer.scores.shape == (30, 1)
    assert answer.queries == ("head 0",)
    np.testing.assert_allclose(answer.attention.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(answer.bias, model.head.bias.detach(), atol=1e-6)
    assert infer(build_model("max", dim=6, n_out=2), FEATURES, CELLS).attention is None


def test_a_memory_map_and_half_precision_are_read(model: MIL, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", FEATURES.astype(np.float16))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    wanted = infer(model, FEATURES.astype(np.float16).astype(np.float32), CELLS)
    np.testing.assert_array_equal(infer(model, mapped, CELLS).logits, wanted.logits)


def test_many_is_one_by_one(model: MIL) -> None:
    source = Bags([(FEATURES, CELLS), (FEATURES[:3], CELLS[:3]), (FEATURES[5:], CELLS[5:])])
    answers = dict(predict_many(model, source, [2, 0]))
    assert list(answers) == [2, 0]
    assert np.array_equal(answers[2].logits, infer(model, FEATURES[5:], CELLS[5:]).logits)


@pytest.mark.parametrize(
    ("features", "cells", "message"),
    [
        (FEATURES[:0], CELLS[:0], "the bag is empty"),
        (FEATURES[:, :5], CELLS, r"features are \(30, 5\) and the model reads 6"),
        (FEATURES, CELLS[:7], "has 30 tiles and cells"),
        (np.where(FEATURES[4, 2] == FEATURES, np.inf, FEATURES), CELLS, "features of tile 4 are not finite"),
    ],
)
def test_bags_that_do_not_fit_are_refused(model: MIL, features: np.ndarray, cells: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        infer(model, features, cells)
