"""LCA-DB: regions and their weights by hand, and the losses that let two branches check each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged, two_classes

from wsi_mil.errors import ModelError
from wsi_mil.evaluation import score, tile_ap
from wsi_mil.models import build_model
from wsi_mil.models.layers import Segments, segments
from wsi_mil.models.lca_db import region_weights, regions
from wsi_mil.training import Bags, FitSettings, Step, fit, predict_many
from wsi_mil.training.auxiliary import branches, ramp, region_labels


class TestLCADB(AggregatorContract):
    name = "lca_db"
    options = {"hidden": 64, "attention": 8, "region": 2, "dropout": 0.0}


def _model(**options: object) -> torch.nn.Module:
    return build_model("lca_db", dim=4, n_out=2, hidden=8, attention=5, region=2, **options).eval().double()


def _step(model: torch.nn.Module, batch: tuple[torch.Tensor, ...], *, progress: float = 1.0) -> Step:
    return Step(model(*batch), torch.tensor([0, 1]), batch[2], two_classes(), [0, 1], progress)


def _one(count: int) -> Segments:
    return segments(torch.tensor([0, count]), device=torch.device("cpu"))


def test_regions_are_the_squares_of_the_grid_whatever_the_bag_holds() -> None:
    cells = torch.tensor([[3, 0], [0, 0], [2, 1], [1, 1], [4, 4], [-1, 0], [5, 5]])
    order, within, bags = regions(cells, segments(torch.tensor([0, 4, 7]), device=cells.device), side=2)
    told = {}
    for row, region in zip(order.tolist(), within.bag.tolist(), strict=True):
        told.setdefault((int(bags.bag[region]), region), set()).add(row)
    assert sorted(map(sorted, told.values())) == [[0, 2], [1, 3], [4, 6], [5]]
    assert bags.lengths == [2, 2]


def test_a_slide_may_be_moved_by_whole_regions() -> None:
    model = _model()
    features, cells, offsets = ragged(30, 20, dim=4)
    here = model(features.double(), cells, offsets).logits
    moved = [model(features.double(), cells + torch.tensor(by), offsets).logits for by in ([1004, -518], [1003, -517])]
    torch.testing.assert_close(moved[0], here)
    assert not torch.allclose(moved[1], here)


def test_the_logit_by_hand() -> None:
    model = _model()
    method = model.aggregator
    features, cells, offsets = ragged(10, dim=4)
    features = features.double()
    places = (cells // 2).tolist()
    low, high = [], []
    for place in sorted({tuple(one) for one in places}):
        rows = [row for row, one in enumerate(places) if tuple(one) == place]
        low.append(method.low(features[rows, 2:].mean(0, keepdim=True))[0])
        tiles = method.high(features[rows, :2])
        high.append((method.within(tiles).softmax(0) * tiles).sum(0))
    total = torch.zeros(8, dtype=torch.float64)
    for parts, head in ((torch.stack(low), method.low_head), (torch.stack(high), method.high_head)):
        share = head(parts).norm(dim=1)
        share = (share / share.sum() - 0.1 / len(parts)).relu()
        total = total + (share / share.sum()) @ parts
    torch.testing.assert_close(model(features, cells, offsets).logits[0], method.head(total))


def test_weights_are_lengths_of_logits_and_small_ones_are_cut() -> None:
    logits = torch.tensor([[3.0, 4.0], [0.05, 0.0], [5.0, 0.0]], dtype=torch.float64, requires_grad=True)
    even, cut = region_weights(logits, _one(3))
    torch.testing.assert_close(even[:, 0].detach(), torch.tensor([5, 0.05, 5], dtype=torch.float64) / 10.05)
    assert cut[1] == 0
    torch.testing.assert_close(cut.detach().sum(), torch.tensor(1.0, dtype=torch.float64))
    cut[1].sum().backward()
    assert not logits.grad.any(), "what is cut learns nothing"
    _, silent = region_weights(torch.zeros(4, 2, requires_grad=True), _one(4))
    torch.testing.assert_close(silent[:, 0], torch.full((4,), 0.25))
    silent.square().sum().backward()
    shifted = region_weights(logits.detach() + 1, _one(3))[0]
    assert not torch.allclose(shifted, even), "unlike loss-based attention a shift of all logits matters"
    same = region_weights(torch.ones(5, 3), _one(5))[1]
    torch.testing.assert_close(same[:, 0], torch.full((5,), 0.2))


def test_the_rise_of_the_losses_of_regions() -> None:
    assert ramp(0) == 0
    assert ramp(1) == pytest.approx(0.00203, abs=5e-6)
    assert ramp(12) == pytest.approx(0.0573, abs=5e-5)
    assert ramp(24) == ramp(90) == 0.2


def test_branches_that_agree_cost_nothing() -> None:
    model = _model()
    step = _step(model, ragged(30, 25, dim=4))
    weights = step.pooled.aux["region_weights"]
    apart = branches(step, {})
    assert 0 < apart <= 1
    swapped = step._replace(pooled=step.pooled._replace(aux={**step.pooled.aux, "region_weights": weights.flip(0)}))
    torch.testing.assert_close(branches(swapped, {}), apart)
    alike = step._replace(pooled=step.pooled._replace(aux={**step.pooled.aux, "region_weights": weights[[0, 0]]}))
    torch.testing.assert_close(branches(alike, {}), torch.zeros_like(apart))
    # the same weights on regions that do not belong together
    moved = torch.stack([weights[0], weights[0].roll(1)])
    wrong = step._replace(pooled=step.pooled._replace(aux={**step.pooled.aux, "region_weights": moved}))
    assert branches(wrong, {}) > 0.001


def test_swapping_the_branches_changes_no_loss() -> None:
    model = _model()
    step = _step(model, ragged(30, 25, dim=4))
    aux = step.pooled.aux
    turned = {**aux, "region_weights": aux["region_weights"].flip(0), "region_logits": aux["region_logits"].flip(0)}
    other = step._replace(pooled=step.pooled._replace(aux=turned))
    torch.testing.assert_close(region_labels(other, {}), region_labels(step, {}))


def test_the_other_branch_can_be_kept_from_learning() -> None:
    slopes = []
    for detach in (False, True):
        model = _model(detach=detach)
        region_labels(_step(model, ragged(30, 25, dim=4)), {}).backward()
        slopes.append(model.aggregator.low_head.weight.grad.clone())
    assert not torch.allclose(*slopes)


@pytest.mark.parametrize(("dim", "region"), [(5, 2), (4, 0)])
def test_bad_options_are_refused(dim: int, region: int) -> None:
    with pytest.raises(ModelError, match="lca_db"):
        build_model("lca_db", dim=dim, n_out=2, region=region)


@pytest.mark.slow
def test_it_finds_a_planted_lesion_by_both_scales_and_misplaced_regions_cost_more() -> None:
    """Lesions of one region of 2 x 2 tiles that both scales see; the coarse half is then moved to wrong regions."""

    def bags(count: int, seed: int) -> tuple[Bags, torch.Tensor, list[np.ndarray]]:
        random, made, truth = np.random.default_rng(seed), [], []
        places = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2)
        region = places[:, 0] // 2 + 4 * (places[:, 1] // 2)
        for number in range(count):
            fine = random.normal(size=(64, 8))
            coarse = random.normal(size=(16, 8))
            lesion = np.zeros(64, dtype=bool)
            if number % 2:
                where = random.integers(16)
                lesion = region == where
                fine[lesion, 0] += 3
                coarse[where, 0] += 3
            made.append((np.concatenate([fine, coarse[region]], axis=1).astype(np.float32), places))
            truth.append(lesion)
        return Bags(made), torch.arange(count) % 2, truth

    train, test = bags(120, 0), bags(80, 100)
    model = build_model("lca_db", dim=16, n_out=2, hidden=16, attention=8, region=2)
    settings = FitSettings(epochs=15, batch_bags=4, lr=3e-3, patience=0)
    fit(model, train[0], fit_index=range(120), select_index=[], targets=train[1], task=two_classes(),
        settings=settings, seed=0)  # fmt: skip
    answers = dict(predict_many(model, test[0], range(80)))
    said = two_classes().predict(np.stack([one.logits for one in answers.values()]))
    assert score("auroc", test[1].numpy(), said) > 0.95
    found = np.mean([tile_ap(test[2][bag], answers[bag].scores[:, 0]) for bag in range(1, 80, 2)])
    assert found > 0.6

    def cost(bag: int, *, moved: bool) -> float:
        features, cells = (torch.from_numpy(part) for part in test[0].load(bag))
        if moved:  # the coarse tiles of another row of regions
            features = torch.cat([features[:, :8], features[:, 8:].roll(32, dims=0)], dim=1)
        with torch.inference_mode():
            pooled = model(features, cells, torch.tensor([0, 64]))
        step = Step(pooled, torch.tensor([1]), torch.tensor([0, 64]), two_classes(), [bag], 1.0)
        return branches(step, {}).item()

    right, wrong = (np.mean([cost(bag, moved=moved) for bag in range(1, 80, 2)]) for moved in (False, True))
    assert wrong > 2 * right
