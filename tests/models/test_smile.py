"""Sparse attention MIL: few tiles hold all of the weight, and training begins with all of them."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import held_out_auroc, planted, ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.training import predict_many


class TestEntmax(AggregatorContract):
    name = "smile"
    options = {"hidden": 32, "attention": 16}


class TestSparsemaxAnnealed(AggregatorContract):
    name = "smile"
    options = {"hidden": 32, "attention": 16, "operator": "sparsemax", "anneal": 0.5}


class TestTopKNeighbours(AggregatorContract):
    name = "smile"
    options = {"hidden": 32, "attention": 16, "operator": "topk", "neighbours": 1.0}


def test_annealing_goes_from_softmax_to_sparse_and_stays_in_the_state() -> None:
    options = {"operator": "sparsemax", "anneal": 0.5, "hidden": 8}
    model = build_model("smile", dim=4, n_out=2, **options).eval()
    with torch.no_grad():
        model.aggregator.log_temperature.fill_(5.0)
    batch = ragged(30, dim=4)
    kept = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        model.at(progress)
        attention = model(*batch).attention.detach()
        kept.append(float(attention.min()))
    assert kept[0] > kept[1] > 0
    assert kept[2:] == [0, 0]
    model.at(0.25)
    again = build_model("smile", dim=4, n_out=2, **options).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*batch).attention, model(*batch).attention)


def test_neighbours_see_all_tiles_of_a_small_bag() -> None:
    """With more neighbours than tiles it is plain self-attention."""
    model = build_model("smile", dim=4, n_out=2, hidden=8, neighbours=9.0).eval().double()
    context = model.aggregator.context
    tiles = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = context.inward(context.norm(tiles)).unflatten(1, (3, 4, 2)).permute(1, 2, 0, 3)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
    from wsi_mil.models.layers import segments

    parts = segments(torch.tensor([0, 6]), device=torch.device("cpu"))
    torch.testing.assert_close(context(tiles, parts), tiles + context.outward(wanted))


def test_it_finds_planted_witnesses_with_few_tiles() -> None:
    train, test = (planted(200, delta=4, share=0.03, seed=seed) for seed in (0, 100))
    options = {"hidden": 32, "attention": 32, "operator": "sparsemax"}
    value, model = held_out_auroc("smile", options, train[:2], test[:2], epochs=12, seed=0)
    assert value >= 0.98
    kept = [(answer.attention > 0).mean() for _, answer in predict_many(model, test[0], range(1, 200, 2))]
    assert sum(kept) / len(kept) < 0.2


@pytest.mark.parametrize(
    "options", [{"operator": "sparsmax"}, {"alpha": 1.0}, {"k": 0}, {"anneal": 2.0}, {"neighbours": -1.0}]
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="smile"):
        build_model("smile", dim=4, n_out=2, **options)
