"""Windows over the grid: each tile has one slot, and tiles of one window lie within its side."""

from __future__ import annotations

import torch
from contracts.planted import ragged

from wsi_mil.models.layers import segments
from wsi_mil.models.windows import windows


def test_slots() -> None:
    cells = torch.tensor([[10, 20], [12, 20], [13, 21], [10, 23]])
    near = windows(cells, segments(torch.tensor([0, 4]), device=torch.device("cpu")), side=3)
    # windows in order: (0, 0), (0, 1), (1, 0) across and down
    assert near.slots.tolist() == [0, 2, 18 + 3, 9]
    assert near.bag.tolist() == [0, 0, 0]
    shifted = windows(cells, segments(torch.tensor([0, 4]), device=torch.device("cpu")), side=3, shift=1)
    assert shifted.slots.tolist() == [4, 18 + 3, 18 + 7, 9 + 4]


def test_every_tile_has_a_slot_of_its_own_in_a_window_of_its_bag() -> None:
    _, cells, offsets = ragged(60, 1, 35)
    cells[61:] = cells[61:] // 2  # several tiles on one cell
    parts = segments(offsets, device=torch.device("cpu"))
    near = windows(cells, parts, side=4, shift=2)
    assert len(set(near.slots.tolist())) == 96
    window = near.slots // 16
    assert torch.equal(near.bag[window], parts.bag)
    assert (near.bag.diff() >= 0).all()
    for number in range(len(near.bag)):
        inside = cells[window == number]
        assert (inside.amax(0) - inside.amin(0) < 4).all()


def test_packed_windows_hold_every_tile_once_and_few_empty_places() -> None:
    torch.manual_seed(0)
    cells = torch.cat([torch.randint(0, 40, (60, 2)), torch.cartesian_prod(torch.arange(16), torch.arange(16)) + 64])
    parts = segments(torch.tensor([0, 60, len(cells)]), device=cells.device)
    near = windows(cells, parts, side=16)
    groups = near.packed()
    found = torch.cat([group.tiles[group.mask] for group in groups])
    assert sorted(found.tolist()) == list(range(len(cells)))
    assert sorted(torch.cat([group.windows for group in groups]).tolist()) == list(range(len(near.bag)))
    for group in groups:
        windows_of = (near.slots // near.side**2)[group.tiles]
        assert ((windows_of == group.windows[:, None]) | ~group.mask).all()
        assert (2 * group.mask.sum(1) > group.tiles.shape[1]).all()
        held = near.places()[group.tiles]
        assert ((held.diff() > 0) | ~group.mask[:, 1:]).all(), "in the order of the slots"
    torch.testing.assert_close(near.places(), near.slots - (near.slots // 256) * 256)
