"""TransMIL: Nystrom attention where it is exact, the grid that positions come from, and true coordinates."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.models.transmil import Nystrom, along, close_ranks, nystrom, pseudo_inverse

SMALL = {"hidden": 16, "heads": 2, "landmarks": 32}


class TestTransMIL(AggregatorContract):
    name = "transmil"
    steps = 60
    options = SMALL


class TestTransMILCoordinates(AggregatorContract):
    name = "transmil"
    steps = 60
    options = {**SMALL, "coordinates": True}


def test_pseudo_inverse() -> None:
    torch.manual_seed(0)
    matrices = (torch.randn(3, 6, 6, dtype=torch.float64) + 4 * torch.eye(6)).softmax(-1)
    wanted = torch.linalg.pinv(matrices)
    torch.testing.assert_close(pseudo_inverse(matrices), wanted, atol=1e-3, rtol=1e-3)


def test_with_a_landmark_for_each_token_it_is_attention() -> None:
    torch.manual_seed(0)
    key = 2 * torch.randn(2, 7, 8, dtype=torch.float64)
    value = torch.randn(2, 7, 8, dtype=torch.float64)
    wanted = functional.scaled_dot_product_attention(key[None], key[None], value[None])[0]
    torch.testing.assert_close(nystrom(key, key, value, landmarks=7), wanted, atol=1e-3, rtol=1e-3)


def test_tokens_alike_give_their_mean() -> None:
    value = torch.randn(2, 20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alike = torch.ones(2, 20, 4, dtype=torch.float64)
    seen = nystrom(alike, alike, value, landmarks=1)
    torch.testing.assert_close(seen, value.mean(1, keepdim=True).expand_as(value))


@pytest.mark.parametrize("tokens", [1, 17, 64, 65, 200])
def test_the_convolution_along_the_tokens_is_that_of_torch(tokens: int) -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(2, tokens, 3, dtype=torch.float64, generator=random)
    taps = torch.randn(2, 33, dtype=torch.float64, generator=random)
    wanted = functional.conv1d(values.permute(2, 0, 1), taps[:, None], padding=16, groups=2).permute(1, 2, 0)
    torch.testing.assert_close(along(values, taps), wanted)


@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_the_first_token_alone_is_that_of_all(tokens: int) -> None:
    """With as many landmarks as tokens and fewer: the same answer and gradients at half the cost."""
    torch.manual_seed(0)
    layer = Nystrom(16, heads=2, landmarks=10, dropout=0.0).double()
    heard = torch.randn(tokens, 16, dtype=torch.float64, requires_grad=True)
    whole = layer(heard)[0]
    alone, likeness = layer.first(heard)
    torch.testing.assert_close(alone, whole)
    known = [heard, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(alone.square().sum(), known), torch.autograd.grad(whole.square().sum(), known), strict=True
    ):
        torch.testing.assert_close(one, other)
    query, key, _ = layer.inward(layer.norm(heard)).reshape(tokens, 3, 2, 8).unbind(1)
    torch.testing.assert_close(likeness, torch.einsum("hp,thp->t", query[0], key) / 2 / 8**0.5)


def test_close_ranks() -> None:
    assert close_ranks(torch.tensor([105, 100, 101, 300, 100])).tolist() == [5, 0, 1, 9, 0]


def test_pieces_far_apart_are_read_as_if_just_out_of_reach() -> None:
    model = build_model("transmil", dim=4, n_out=2, coordinates=True, **SMALL).eval()
    features, cells, offsets = ragged(12, dim=4)
    cells[6:, 0] += 50
    near = cells.clone()
    near[6:, 0] -= 50 - 4 - int(cells[:6, 0].max())
    torch.testing.assert_close(model(features, cells, offsets).logits, model(features, near, offsets).logits)


def test_the_published_square_and_true_coordinates_agree_on_a_full_square() -> None:
    fake = build_model("transmil", dim=4, n_out=2, **SMALL).eval()
    true = build_model("transmil", dim=4, n_out=2, coordinates=True, **SMALL).eval()
    features = ragged(9, dim=4)[0]
    cells = torch.stack([torch.arange(9) % 3, torch.arange(9) // 3], dim=1)
    offsets = torch.tensor([0, 9])
    torch.testing.assert_close(true(features, cells, offsets).logits, fake(features, cells, offsets).logits)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = true(features[order], cells[order], offsets)
    torch.testing.assert_close(moved.logits, true(features, cells, offsets).logits)
    assert not torch.allclose(fake(features[order], cells[order], offsets).logits, moved.logits)


@pytest.mark.parametrize("options", [{"heads": 3}, {"landmarks": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="transmil"):
        build_model("transmil", dim=4, n_out=2, **options)
