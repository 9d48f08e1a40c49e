"""CRAL: its masks between nothing and twice the mean, each class for itself."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestCRAL(AggregatorContract):
    name = "cral"
    options = {"hidden": 16, "width": 8, "dropout": 0.0}


class TestCRALSoftmax(AggregatorContract):
    name = "cral"
    options = {"hidden": 16, "width": 8, "dropout": 0.0, "norm": "softmax"}


def _model(**options: object) -> torch.nn.Module:
    return build_model("cral", dim=4, n_out=3, hidden=8, width=5, **options).eval().double()


def _trunk(model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    method = model.aggregator
    return method.trunk_norm(method.trunk(features.double())).relu()


@pytest.mark.parametrize(("mask", "times"), [(-1e3, 1), (1e3, 2)])
def test_an_empty_mask_is_the_mean_and_a_full_one_twice_the_mean(mask: float, times: int) -> None:
    model = _model()
    with torch.no_grad():
        model.aggregator.masks.bias.fill_(mask)
    features, cells, offsets = ragged(12, dim=4)
    wanted = times * _trunk(model, features).mean(0)
    torch.testing.assert_close(model(features, cells, offsets).embedding[0], wanted.expand(3, -1))


def test_the_memory_free_form_is_the_naive_one() -> None:
    features, cells, offsets = ragged(12, dim=4)
    for residual in (True, False):
        model = _model(residual=residual)
        pooled, trunk = model(features, cells, offsets), _trunk(model, features)
        naive = ((residual + pooled.attention)[:, :, None] * trunk[:, None]).mean(0)
        torch.testing.assert_close(pooled.embedding[0], naive, atol=1e-14, rtol=0)
        wanted = (model.aggregator.head * naive).sum(1) + model.aggregator.bias
        torch.testing.assert_close(pooled.logits[0], wanted, atol=1e-14, rtol=0)


def test_classes_do_not_see_the_masks_of_others() -> None:
    model = _model()
    model(*ragged(12, dim=4)).logits[0, 1].backward()
    masks = model.aggregator.masks.weight.grad
    assert masks[1].any()
    assert not masks[[0, 2]].any()


def test_with_the_middle_of_the_kernel_alone_places_do_not_matter() -> None:
    model = _model()
    features, cells, offsets = ragged(12, dim=4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    before = model(features, cells, offsets).logits
    assert not torch.allclose(model(features, cells[order], offsets).logits, before)
    outside = [0, 1, 2, 3, 5, 6, 7, 8]
    with torch.no_grad():
        for layer in (model.aggregator.first, model.aggregator.second):
            layer.weight[outside] = 0
    alone = model(features, cells, offsets).logits
    torch.testing.assert_close(model(features, cells[order], offsets).logits, alone)


def test_one_tile_can_be_trained_on() -> None:
    model = build_model("cral", dim=4, n_out=2).train()
    assert torch.isfinite(model(*ragged(1, dim=4)).logits).all()


@pytest.mark.parametrize("options", [{"norm": "sum"}, {"width": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="cral"):
        build_model("cral", dim=4, n_out=2, **options)


@pytest.mark.parametrize("norm", ["none", "softmax"])
def test_each_of_two_labels_finds_its_own_lesion(norm: str) -> None:
    random = torch.Generator().manual_seed(0)
    cells = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    slides = []
    for number in range(160):
        features, present = torch.randn(144, 8, generator=random), torch.tensor([number % 2, number // 2 % 2]) > 0
        lesions = torch.zeros(144, 2, dtype=torch.bool)
        for label in range(2):
            # one in the left half and one in the right, so that they never meet
            corner = torch.tensor([6 * label, 0]) + torch.stack(
                [torch.randint(0, 4, (), generator=random), torch.randint(0, 10, (), generator=random)]
            )
            lesions[:, label] = ((cells >= corner) & (cells < corner + 3)).all(1) & present[label]
            features[lesions[:, label], label] += 4
        slides.append((features, lesions, present.float()))
    model = build_model("cral", dim=8, n_out=2, seed=0, hidden=16, width=8, norm=norm, dropout=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(250):
        batch = [slides[(8 * step + place) % 120] for place in range(8)]
        pooled = model.train()(torch.cat([one[0] for one in batch]), cells.repeat(8, 1), torch.arange(0, 9 * 144, 144))
        wanted = torch.stack([one[2] for one in batch])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(pooled.logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    found = [
        bool(lesions[model(features, cells, torch.tensor([0, 144])).scores[:, label].argmax(), label])
        for features, lesions, present in slides[120:]
        for label in range(2)
        if present[label]
    ]
    assert sum(found) / len(found) > 0.95
