"""Auxiliary losses against what can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contracts.planted import planted, ragged, two_classes
from torch import Tensor
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models import Pooled, build_model
from wsi_mil.tasks import Ordinal
from wsi_mil.training import Auxiliary, FitSettings, Step, fit

OFFSETS = torch.tensor([0, 4, 9])
TARGET = torch.tensor([1, 0])


def _step(aux: dict[str, Tensor] | None = None, **changes: Any) -> Step:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(9, 2, generator=random)
    attention = torch.cat([part.softmax(0) for part in scores.split([4, 5])])
    pooled = Pooled(torch.zeros(2, 2, 3), scores, attention, torch.zeros(2, 2), None, aux or {})
    step = Step(pooled, TARGET, OFFSETS, two_classes(), [7, 3], 0.5)
    return step._replace(**changes)


def _value(name: str, step: Step, auxiliary: Auxiliary | None = None) -> float:
    return (auxiliary or Auxiliary({"bag": 0.0, name: 1.0}))(torch.tensor(5.0), step).item()


def test_weights() -> None:
    step = _step({"min_cut": torch.tensor([-1.0, -0.5])})
    assert Auxiliary({})(torch.tensor(2.0), step) == 2.0
    assert Auxiliary({"bag": 0.7, "min_cut": 2.0})(torch.tensor(2.0), step).item() == pytest.approx(1.4 - 1.5)
    assert Auxiliary({"clusters": 0.0})(torch.tensor(2.0), step) == 2.0
    with pytest.raises(ModelError, match="unknown auxiliary loss 'cluster': did you mean 'clusters'"):
        Auxiliary({"cluster": 1.0})


def test_entropy() -> None:
    uniform = torch.cat([torch.full((4, 2), 1 / 4), torch.full((5, 2), 1 / 5)])
    step = _step()
    assert _value("entropy", step._replace(pooled=step.pooled._replace(attention=uniform))) == pytest.approx(-1)
    alone = torch.zeros(9, 2)
    alone[[0, 4]] = 1.0
    assert _value("entropy", step._replace(pooled=step.pooled._replace(attention=alone))) == pytest.approx(0)


def test_carried_is_each_tiles_loss_by_its_weight() -> None:
    logits = torch.randn(9, 2, generator=torch.Generator().manual_seed(1))
    step = _step({"tile_logits": logits})
    wanted = 0.0
    for start, stop, kind in ((0, 4, 1), (4, 9, 0)):
        for tile in range(start, stop):
            wanted -= float(step.pooled.attention[tile, 0] * logits[tile].log_softmax(0)[kind]) / 2
    assert _value("carried", step) == pytest.approx(wanted, rel=1e-5)


def test_steady_compares_with_the_corrected_mean_of_earlier_epochs() -> None:
    auxiliary, step = Auxiliary({"bag": 0.0, "steady": 1.0}), _step()
    first = step.pooled.attention
    assert _value("steady", step, auxiliary) == 0
    assert _value("steady", step, auxiliary) == pytest.approx(0, abs=1e-12)  # a constant is its own corrected mean
    moved = step._replace(pooled=step.pooled._replace(attention=first + 0.1))
    assert _value("steady", moved, auxiliary) == pytest.approx((4 + 5) * 2 * 0.01 / 2, rel=1e-4)
    mean = (0.6 * (0.6 * 0.4 + 0.4) * first + 0.4 * (first + 0.1)) / (1 - 0.6**3)
    wanted = ((first - mean) ** 2).sum() / 2
    assert _value("steady", step, auxiliary) == pytest.approx(float(wanted), rel=1e-4)
    with pytest.raises(ModelError, match="bag 3 had 5 tiles and now has 4"):
        _value("steady", step._replace(bags=[3, 7]), auxiliary)


def _clusters(*, exclusive: bool, hinge: bool = False, tiles: int = 2) -> dict[str, Tensor]:
    logits = torch.randn(9, 2, 2, generator=torch.Generator().manual_seed(2))
    flags = {"cluster_exclusive": torch.tensor(exclusive), "cluster_hinge": torch.tensor(hinge)}
    return {"cluster_logits": logits, "cluster_tiles": torch.tensor(tiles), **flags}


@pytest.mark.parametrize("hinge", [False, True])
def test_clusters_of_the_first_and_the_last_tiles(hinge: bool) -> None:
    aux = _clusters(exclusive=True, hinge=hinge)
    step = _step(aux)
    loss = functional.multi_margin_loss if hinge else functional.cross_entropy
    wanted = 0.0
    for start, stop, kind in ((0, 4, 1), (4, 9, 0)):
        order = [sorted(range(start, stop), key=lambda tile: -float(step.pooled.scores[tile, c])) for c in (0, 1)]
        own = aux["cluster_logits"][[*order[kind][:2], *order[kind][-2:]], kind]
        other = aux["cluster_logits"][order[1 - kind][:2], 1 - kind]
        wanted += float(loss(own, torch.tensor([1, 1, 0, 0])) + loss(other, torch.tensor([0, 0]))) / 4
    assert _value("clusters", step) == pytest.approx(wanted, rel=1e-5)


def test_clusters_that_are_not_exclusive_leave_other_classes_alone() -> None:
    aux = _clusters(exclusive=False)
    aux["cluster_logits"].requires_grad_()
    Auxiliary({"clusters": 1.0})(torch.tensor(0.0), _step(aux)).backward()
    grad = aux["cluster_logits"].grad
    assert not grad[:4, 0].any()
    assert not grad[4:, 1].any()
    assert (grad[:4, 1] != 0).any(dim=1).all()
    assert (grad[4:, 0] != 0).any(dim=1).sum() == 4


def test_clusters_of_a_bag_of_one_tile_say_nothing() -> None:
    pooled = Pooled(
        torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 2), None, _clusters(exclusive=True)
    )
    pooled.aux["cluster_logits"] = pooled.aux["cluster_logits"][:1]
    step = Step(pooled, torch.tensor([1]), torch.tensor([0, 1]), two_classes(), [0], 0.0)
    assert _value("clusters", step) == 0


def test_streams_and_pseudo_bags_are_the_tasks_loss() -> None:
    logits = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(3))
    wanted = (functional.cross_entropy(logits[0], TARGET) + functional.cross_entropy(logits[1], TARGET)) / 2
    assert _value("streams", _step({"stream_logits": logits})) == pytest.approx(wanted.item())
    bags = torch.tensor([0, 1, 1, 0])
    wanted = functional.cross_entropy(logits.flatten(0, 1), TARGET[bags])
    step = _step({"pseudo_logits": logits.flatten(0, 1), "pseudo_bag": bags})
    assert _value("pseudo_bags", step) == pytest.approx(wanted.item())


def _looking(attention: Tensor) -> Step:
    step = _step()
    return step._replace(pooled=step.pooled._replace(attention=attention))


def test_diversity_is_the_cosine_of_two_queries_attention() -> None:
    apart = torch.eye(9)[:, :3] * torch.tensor([1.0, 0.5, 0.0])
    same = torch.full((9, 3), 1 / 9)
    assert _value("diversity", _looking(apart)) == 0
    assert _value("diversity", _looking(same)) == pytest.approx(1)
    half = apart.clone()
    half[0, 1] = 0.5  # in the first bag, queries 0 and 1 share a tile: cosine 1 / sqrt(2), one pair of three
    assert _value("diversity", _looking(half)) == pytest.approx(0.5**0.5 / 3 / 2)
    assert _value("diversity", _looking(same[:, :1])) == 0


def test_training_uses_them_and_validation_does_not() -> None:
    source, targets, _ = planted(8, delta=4, share=0.5, seed=0, tiles=(10, 12), dim=4)
    rows = []
    for weight in (0.0, 10.0):
        fitted = fit(
            build_model("loss_attention", dim=4, n_out=2, hidden=8, carried=weight, dropout=0.0),
            source,
            fit_index=range(6),
            select_index=range(6, 8),
            targets=targets,
            task=two_classes(),
            settings=FitSettings(epochs=1, batch_bags=6, lr=1e-9, warmup=0),
            seed=0,
        )
        rows.append(fitted.history[0])
    assert rows[1]["select_loss"] == pytest.approx(rows[0]["select_loss"], rel=1e-5)
    assert rows[1]["fit_loss"] > rows[0]["fit_loss"] + 1


@pytest.mark.parametrize(("name", "warned"), [("dsmil", 1), ("dtfd", 1), ("mil_vt", 0), ("abmil", 0)])
def test_ordered_grades_are_warned_of(name: str, warned: int, caplog: pytest.LogCaptureFixture) -> None:
    source, _, _ = planted(6, delta=4, share=0.5, seed=0, tiles=(4, 6), dim=4)
    task = Ordinal(classes=("1", "2", "3"), objective="corn")
    fit(
        build_model(name, dim=4, n_out=task.n_out, seed=0, hidden=8),
        source,
        fit_index=range(6),
        select_index=[],
        targets=torch.tensor([0, 1, 2, 0, 1, 2]),
        task=task,
        settings=FitSettings(epochs=2, batch_bags=3),
        seed=0,
    )
    assert sum("ordered grades" in record.message for record in caplog.records) == warned


@pytest.mark.parametrize("name", ["loss_attention", "clam", "lca_db"])
def test_losses_that_need_classes_refuse_ordered_grades(name: str) -> None:
    """Their targets are whole numbers too, and the highest of them is no output."""
    task = Ordinal(classes=("1", "2", "3"), objective="corn")
    model = build_model(name, dim=4, n_out=task.n_out, seed=0, hidden=8).train()
    batch, target = ragged(4, 5, dim=4), torch.tensor([2, 0])
    pooled = model(*batch)
    with pytest.raises(ModelError, match="needs one class a slide, and the task is ordinal"):
        Auxiliary(model.losses)(torch.tensor(0.0), Step(pooled, target, batch[2], task, [0, 1], 0.5))
