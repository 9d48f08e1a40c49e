"""Training: which bag is read when, in which mode, and with which tiles."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from contracts.planted import two_classes
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models import Aggregator, Pooled, build_model
from wsi_mil.models.layers import segment_mean, segments
from wsi_mil.training import Bags, FitSettings, Fitted, fit

FIT, SELECT = list(range(12)), list(range(12, 18))
QUICK = FitSettings(epochs=3, lr=3e-3)


class Spy(Aggregator):
    """Mean pooling that writes down in which state it reads which bag; feature 0 holds the bag's number."""

    weights = "none"
    exact_contributions = False
    spatial = False
    own_logits = True
    use, paper, cost = "never", "none", "O(N)"
    seen: ClassVar[list[tuple[int, int, bool, bool]]] = []

    def __init__(self, dim: int, n_out: int) -> None:
        super().__init__()
        self.queries, self.embedding_dim = ("mean",), dim
        self.head = nn.Linear(dim, n_out)

    def pool(self, features: Tensor, cells: Tensor, offsets: Tensor, clinical: object = None) -> Pooled:
        parts = segments(offsets, device=features.device)
        for start, length in zip(offsets.tolist(), parts.lengths, strict=False):
            self.seen.append((int(features[start, 0]), length, self.training, torch.is_inference_mode_enabled()))
        mean = segment_mean(features, parts)
        return Pooled(mean[:, None], features[:, :1], None, self.head(mean), None, {})


def _numbered(count: int = 24) -> Bags:
    random = np.random.default_rng(0)
    bags = []
    for number in range(count):
        features = random.normal(size=(20, 4)).astype(np.float32)
        features[:, 0] = number
        bags.append((features, np.zeros((20, 2), dtype=np.int64)))
    return Bags(bags)


def _spied(*, seed: int = 0, **settings: object) -> tuple[list[tuple[int, int, bool, bool]], Fitted]:
    Spy.seen.clear()
    fitted = fit(
        build_model(Spy, dim=4, n_out=2),
        _numbered(),
        fit_index=FIT,
        select_index=SELECT,
        targets=torch.arange(24) % 2,
        task=two_classes(),
        settings=FitSettings(**{"epochs": 3, "standardise": False, **settings}),
        seed=seed,
    )
    return list(Spy.seen), fitted


def test_validation_runs_in_evaluation_mode_without_gradients() -> None:
    seen, _ = _spied()
    fitting = [row for row in seen if row[0] in FIT]
    selecting = [row for row in seen if row[0] in SELECT]
    assert len(fitting) == 3 * len(FIT)
    assert len(selecting) == 3 * len(SELECT)
    assert all(training and not inference for _, _, training, inference in fitting)
    assert all(inference and not training for _, _, training, inference in selecting)


def test_no_other_slide_is_ever_read() -> None:
    seen, _ = _spied()
    assert {row[0] for row in seen} == {*FIT, *SELECT}


def test_each_slide_is_seen_once_an_epoch_in_a_new_order() -> None:
    seen, _ = _spied(batch_bags=5)
    order = [row[0] for row in seen if row[0] in FIT]
    epochs = [order[start : start + len(FIT)] for start in range(0, len(order), len(FIT))]
    assert all(sorted(epoch) == FIT for epoch in epochs)
    assert epochs[0] != epochs[1]
    other, _ = _spied(batch_bags=5, seed=1)
    assert [row[0] for row in other if row[0] in FIT] != order, "the order is the seed's"


def test_tiles_are_drawn_for_training_and_never_for_validation() -> None:
    seen, _ = _spied(tiles_per_bag=7)
    assert {length for bag, length, _, _ in seen if bag in FIT} == {7}
    assert {length for bag, length, _, _ in seen if bag in SELECT} == {20}


def test_tiles_are_drawn_anew_each_epoch() -> None:
    drawn: list[tuple[float, ...]] = []

    class Watching(Spy):
        def pool(self, features: Tensor, cells: Tensor, offsets: Tensor, clinical: object = None) -> Pooled:
            if self.training and int(features[0, 0]) == 3:
                drawn.append(tuple(features[:, 1].tolist()))
            return super().pool(features, cells, offsets, clinical)

    model = build_model(Watching, dim=4, n_out=2)
    settings = FitSettings(epochs=4, tiles_per_bag=5, standardise=False)
    targets = torch.arange(24) % 2
    fit(
        model,
        _numbered(),
        fit_index=FIT,
        select_index=[],
        targets=targets,
        task=two_classes(),
        settings=settings,
        seed=0,
    )
    assert len(drawn) == len(set(drawn)) == 4
    assert all(len(set(tiles)) == 5 for tiles in drawn)


def test_features_that_are_not_finite_are_named() -> None:
    source = _numbered()
    source.load(5)[0][3, 2] = np.nan
    model = build_model("abmil", dim=4, n_out=2)
    arguments = {"fit_index": FIT, "select_index": [], "targets": torch.zeros(24, dtype=torch.int64)}
    with pytest.raises(ModelError, match="bag 5: feature 2 of tile 3 is nan"):
        fit(model, source, **arguments, task=two_classes(), settings=QUICK, seed=0)
    names = [f"slide 's{number}'" for number in range(24)]
    with pytest.raises(ModelError, match="slide 's5': feature 2 of tile 3 is nan"):
        fit(model, source, **arguments, task=two_classes(), settings=QUICK, seed=0, names=names)
    plain = FitSettings(standardise=False)
    with pytest.raises(ModelError, match="the loss is nan at slide 's5': look for"):
        fit(model, source, **arguments, task=two_classes(), settings=plain, seed=0, names=names)


def test_of_the_select_role_the_bag_that_is_not_finite_is_named() -> None:
    source, bad = _numbered(), SELECT[1]
    source.load(bad)[0][3, 2] = np.nan
    model = build_model("abmil", dim=4, n_out=2)
    arguments = {"fit_index": FIT, "select_index": SELECT, "targets": torch.arange(24) % 2}
    with pytest.raises(ModelError, match=f"the loss is nan at bag {bad}: look for"):
        fit(model, source, **arguments, task=two_classes(), settings=QUICK, seed=0)


@pytest.mark.parametrize(
    ("fit_index", "select_index", "message"),
    [([], [1], "fit role is empty"), ([0, 1], [1, 2], r"bags \[1\] are in the fit role and in"), ([0, 24], [], "24")],
)
def test_roles_that_do_not_fit_are_refused(fit_index: list[int], select_index: list[int], message: str) -> None:
    arguments = {"targets": torch.arange(24) % 2, "task": two_classes(), "settings": QUICK, "seed": 0}
    with pytest.raises(ModelError, match=message):
        fit(
            build_model("abmil", dim=4, n_out=2),
            _numbered(),
            fit_index=fit_index,
            select_index=select_index,
            **arguments,
        )
