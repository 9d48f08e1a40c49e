"""Soft-Attention: its maps, its scale, and the floor of its scores."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestSoftAttention(AggregatorContract):
    name = "soft_attention"
    options = {"hidden": 32, "maps": 4}


def _grid(width: int, height: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(width), torch.arange(height))


def test_number_of_parameters_of_the_maps() -> None:
    method = build_model("soft_attention", dim=4, n_out=2, hidden=192).aggregator
    assert sum(weight.numel() for weight in method.maps.parameters()) == 27664


def test_what_the_head_reads_is_the_embedding() -> None:
    """Twice the channels, the plain mean and the attended sum, as the paper joins them."""
    model = build_model("soft_attention", dim=4, n_out=2, hidden=8).eval()
    pooled = model(*ragged(12, 7, dim=4))
    assert pooled.embedding.shape == (2, 16, 2 * 8)
    mean, attended = pooled.embedding.chunk(2, dim=2)
    method = model.aggregator
    torch.testing.assert_close(method.plain(mean[:, 0]) + method.attended(attended.sum(1)), pooled.logits)
    assert torch.equal(mean[:, 0], mean[:, 7])


def test_without_gamma_it_is_the_mean_and_the_maps_do_not_learn() -> None:
    model = build_model("soft_attention", dim=4, n_out=2, hidden=8).eval()
    method = model.aggregator
    with torch.no_grad():
        method.gamma.zero_()
    features, cells, offsets = ragged(12, dim=4)
    logits = model(features, cells, offsets).logits
    torch.testing.assert_close(logits[0], method.plain(method.projection(features).mean(0)))
    logits.sum().backward()
    assert not method.maps.weight.grad.any()
    assert method.gamma.grad.any()


def test_maps_sum_to_their_number_and_are_even_inside_a_constant() -> None:
    model = build_model("soft_attention", dim=4, n_out=2, hidden=8).eval()
    cells = _grid(8, 8)
    pooled = model(torch.ones(64, 4), cells, torch.tensor([0, 64]))
    assert pooled.attention.sum().item() == pytest.approx(16)
    assert pooled.attention.sum(1).mean().item() == pytest.approx(0.25)
    inside = ((cells > 0) & (cells < 7)).all(1)
    assert (pooled.attention[inside].amax(0) - pooled.attention[inside].amin(0)).max() < 1e-7


def test_a_map_below_zero_is_uniform_and_dead() -> None:
    model = build_model("soft_attention", dim=4, n_out=2, hidden=8).eval()
    with torch.no_grad():
        model.aggregator.maps.bias.fill_(-100.0)
    pooled = model(*ragged(12, dim=4))
    torch.testing.assert_close(pooled.attention, torch.full((12, 16), 1 / 12))
    pooled.logits.sum().backward()
    assert not model.aggregator.maps.weight.grad.any()


def test_a_moved_blob_moves_the_maps() -> None:
    model = build_model("soft_attention", dim=4, n_out=2, hidden=8).eval()
    cells = _grid(12, 12)
    tops = []
    for column, row in ((4, 4), (6, 7)):
        features = torch.zeros(144, 4)
        features[((cells - torch.tensor([column, row])).abs() <= 1).all(1)] = 3.0
        scores = model(features, cells, torch.tensor([0, 144])).scores
        tops.append(cells[scores.argmax(0)])
    inside = ((tops[0] > 0) & (tops[0] < 11)).all(1)  # where no edge of the grid is the peak
    assert inside.any()
    assert torch.equal((tops[1] - tops[0])[inside], torch.tensor([[2, 3]]).expand(int(inside.sum()), 2))


def test_no_map_is_refused() -> None:
    with pytest.raises(ModelError, match="maps is 0"):
        build_model("soft_attention", dim=4, n_out=2, maps=0)
