"""GasHis: its two streams, each alone and side by side, and relative places counted by hand."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import planted, ragged
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestGasHis(AggregatorContract):
    name = "gashis"
    options = {"hidden": 16, "heads": 2, "reach": 3}
    steps = 80


def _model(**options: object) -> torch.nn.Module:
    return build_model("gashis", dim=4, n_out=2, hidden=8, heads=2, reach=3, **options).eval().double()


def test_both_streams_reach_the_head_side_by_side() -> None:
    model = _model()
    assert model.aggregator.head.in_features == 16
    batch = ragged(9, 5, dim=4)
    whole = model(*batch)
    assert whole.embedding.shape == (2, 2, 16)
    with torch.no_grad():
        for weight in model.aggregator.near.parameters():
            weight.zero_()
    pooled = model(*batch)
    assert not pooled.embedding[..., 8:].any()
    torch.testing.assert_close(pooled.embedding[..., :8], whole.embedding[..., :8])
    wanted = functional.linear(
        whole.embedding[:, 0, :8], model.aggregator.head.weight[:, :8], model.aggregator.head.bias
    )
    torch.testing.assert_close(pooled.logits, wanted)


def test_likeness_with_relative_places_on_a_3_x_3_map() -> None:
    """Against a loop over pairs; with a reach of 1, the steps of 2 count as 1."""
    for reach in (1, 3):
        layer = build_model("gashis", dim=4, n_out=2, hidden=8, heads=2, reach=reach).aggregator.wide[0].double()
        known = torch.randn(9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        cells = torch.tensor([[column + 5, row] for row in range(3) for column in range(3)])
        seen = layer.likeness(known, cells)
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            for i in range(9):
                q = layer.query(known)[i, part]
                for j in range(9):
                    across, down = ((cells[j] - cells[i]).clamp(-reach, reach) + reach).tolist()
                    wanted = q @ (layer.key(known)[j, part] + layer.steps[0, across] + layer.steps[1, down]) / 2
                    torch.testing.assert_close(seen[head, i, j], wanted)


def test_a_quarter_turn_is_seen_unless_places_are_silenced() -> None:
    model = _model()
    features, cells, offsets = ragged(12, dim=4)
    turned = torch.stack([-cells[:, 1], cells[:, 0]], dim=1)

    def global_half(places: torch.Tensor) -> torch.Tensor:
        return model(features, places, offsets).embedding[..., :8]

    assert not torch.allclose(global_half(turned), global_half(cells))
    with torch.no_grad():
        model.aggregator.wide[0].steps.zero_()
    torch.testing.assert_close(global_half(turned), global_half(cells))


def test_the_local_stream_sees_two_cells_far_and_no_farther() -> None:
    near = _model().aggregator.near
    tiles = ragged(7, dim=8)[0].double()
    row = torch.arange(7)[:, None] + torch.arange(-1, 2)
    around = torch.full((7, 9), -1)
    around[:, 3:6] = torch.where((row >= 0) & (row < 7), row, -1)
    before = near(tiles, around)
    tiles[0] += 3
    changed = ((near(tiles, around) - before).abs() > 1e-9).reshape(7, 4, 2).any(dim=2)
    reach = [int(column.nonzero().max()) for column in changed.T]
    assert reach == [0, 1, 2, 1]


@pytest.mark.parametrize("silent", [slice(0, 16), slice(16, 32)])
def test_each_stream_alone_learns(silent: slice) -> None:
    """With the other's half of the head at nothing, before and after each step."""
    model = build_model("gashis", dim=12, n_out=2, hidden=16, heads=2, reach=3, dropout=0.0, seed=1).train()
    source, targets, _ = planted(8, delta=0, share=0.5, seed=0, tiles=(10, 14), dim=12)
    bags = [source.load(bag) for bag in range(8)]
    features, cells = (torch.cat([torch.as_tensor(bag[part]) for bag in bags]) for part in range(2))
    offsets = torch.tensor([0, *(len(bag[0]) for bag in bags)]).cumsum(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(50):
        with torch.no_grad():
            model.aggregator.head.weight[:, silent] = 0
        loss = functional.cross_entropy(model(features, cells, offsets).logits, targets)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss < 0.1


@pytest.mark.parametrize("options", [{"heads": 3}, {"hidden": 6, "heads": 2}, {"depth": 0}, {"reach": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="gashis"):
        build_model("gashis", dim=4, n_out=2, **options)
