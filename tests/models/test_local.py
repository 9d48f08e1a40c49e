"""Local attention: one window against plain attention written out, and how far a tile is heard."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.models.transformer import MaskedBlock


class TestLocal(AggregatorContract):
    name = "local"
    steps = 60
    options = {"hidden": 16, "attention": 8, "side": 4, "global_tokens": 2, "heads": 2}


def test_a_masked_block_is_attention_over_the_slots_that_hold_something() -> None:
    torch.manual_seed(0)
    block = MaskedBlock(8, heads=2).double()
    tokens, context = torch.randn(1, 5, 8, dtype=torch.float64), torch.randn(1, 3, 8, dtype=torch.float64)
    bias = torch.randn(2, 5, 5, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False]])
    known = block.norm_mixing(tokens[0])
    asked = torch.cat([block.norm_mixing(context[0]), known[mask[0]]])
    q, k, v = block.query(known), block.key(asked), block.value(asked)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        likeness = q[:, part] @ k[:, part].T / 2
        likeness[:, 3:] += bias[head][:, mask[0]]
        heads.append(likeness.softmax(1) @ v[:, part])
    mixed = tokens[0] + block.outward(torch.cat(heads, dim=1))
    wanted = mixed + block.mlp(block.norm_mlp(mixed))
    torch.testing.assert_close(block(tokens, mask, context=context, bias=bias[None])[0], wanted)


def test_steps_across_and_down_have_numbers_of_their_own() -> None:
    steps = build_model("local", dim=4, n_out=2, side=3).aggregator.layers[0].steps
    places = [(row, column) for row in range(3) for column in range(3)]
    found = {}
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            found.setdefault((row - other_row, column - other_column), set()).add(int(steps[i, j]))
    assert all(len(numbers) == 1 for numbers in found.values())
    assert len({min(numbers) for numbers in found.values()}) == 25


def test_near_tiles_are_heard_more_directly_than_far_ones() -> None:
    """With silent global vectors, a tile of another window is not heard at all."""
    model = build_model("local", dim=4, n_out=2, side=2, depth=1, hidden=8).eval()
    features = ragged(6, dim=4)[0]
    cells = torch.stack([torch.arange(6), torch.zeros(6, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        model.aggregator.layers[0].globals.out.weight.zero_()
    before = model(features, cells, torch.tensor([0, 6])).scores
    features[0] += 1
    changed = ((model(features, cells, torch.tensor([0, 6])).scores - before).abs() > 1e-6)[:, 0]
    assert changed.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("options", [{"heads": 3}, {"side": 0}, {"global_tokens": 0}, {"depth": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="local"):
        build_model("local", dim=4, n_out=2, **options)
