"""The borders of a mask as closed lines, each known to be the outside of a piece or the rim of a hole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from skimage.measure import label

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Of a walk along the top, right, bottom and left side of a pixel, tissue to the right hand, as (rows, columns)."""


@dataclass(frozen=True)
class Borders:
    """Closed lines one after another, each corner once; a line is a run of equal numbers in `line`."""

    corners: Float64[np.ndarray, "corner 2"]
    """x and y of each corner, where the centre of pixel (row, column) lies at (column, row)."""
    line: Int64[np.ndarray, "corner"]
    """Number of the line that a corner belongs to, ascending."""
    piece: Int64[np.ndarray, "line"]
    """Number of the connected piece that a line bounds."""
    is_outside: Bool[np.ndarray, "line"]
    """Whether it is the outside of that piece, or the rim of a hole in it."""


def borders(mask: Bool[np.ndarray, "h w"]) -> Borders:
    """The borders of the true pixels, through the middles of the sides that part them from false ones.

    The same lines as marching squares draw at a half, in a third of the time: pixels that share a side are one piece,
    those that only touch at a corner are two. The mask's edge is a border too.
    """
    padded = np.pad(mask, 1)
    width = padded.shape[1]
    flat = padded.ravel()
    moves = [rows * width + columns for rows, columns in STEPS]
    # A side is a border where the pixel is true and the one beyond it false; beyond the top is one step of the left.
    inside = np.flatnonzero(flat)
    sides = [inside[~flat[inside + moves[side - 1]]] for side in range(4)]
    starts = np.cumsum([0, *map(len, sides)])
    follows = np.concatenate([_follows(flat, sides, starts, moves, side) for side in range(4)])
    order, line = _walk(follows)
    pixels, side = np.concatenate(sides)[order], np.repeat(np.arange(4), np.diff(starts))[order]
    beyond = np.array([STEPS[number - 1] for number in range(4)])[side]
    places = np.stack([pixels % width, pixels // width], axis=1) - 1.0 + beyond[:, ::-1] / 2
    pieces = label(mask, connectivity=1)
    first = np.flatnonzero(np.diff(line, prepend=-1))
    row, column = pixels[first] // width - 1, pixels[first] % width - 1
    x, y = places.T
    after = _next_in(line)
    turn = np.bincount(line, weights=x * y[after] - x[after] * y, minlength=len(first))
    bends = ((places[after] - places) != (places - places[_previous_in(line)])).any(axis=1)
    return Borders(places[bends], line[bends], pieces[row, column].astype(np.int64), turn > 0)


def _follows(
    flat: Bool[np.ndarray, "pixel"],
    sides: list[NDArray[np.int64]],
    starts: NDArray[np.int64],
    moves: list[int],
    side: int,
) -> NDArray[np.int64]:
    """Number of the side that comes after each of some equal sides (top, right, bottom or left) on the walk."""
    here = sides[side]
    ahead = here + moves[side]
    across = ahead + moves[side - 1]
    # Round the corner of the same pixel, straight on, or round the corner that another pixel makes.
    turns_right, turns_left = ~flat[ahead], flat[ahead] & flat[across]
    out = np.empty(len(here), np.int64)
    for chosen, pixel, number in (
        (turns_right, here, (side + 1) % 4),
        (~turns_right & ~turns_left, ahead, side),
        (turns_left, across, (side + 3) % 4),
    ):
        out[chosen] = starts[number] + np.searchsorted(sides[number], pixel[chosen])
    return out


def _walk(follows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All sides in the order of their lines, and the number of each one's line."""
    successor = follows.tolist()
    order: list[int] = []
    lengths: list[int] = []
    for start in range(len(successor)):
        here, before = start, len(order)
        # A side that was walked has no successor any more.
        while (after := successor[here]) >= 0:
            order.append(here)
            successor[here] = -1
            here = after
        if len(order) > before:
            lengths.append(len(order) - before)
    return np.array(order, np.int64), np.repeat(np.arange(len(lengths)), np.array(lengths, np.int64))


def _next_in(line: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the corner after each one, the first of a line after its last."""
    after = np.arange(1, len(line) + 1)
    first = np.flatnonzero(np.diff(line, prepend=-1))
    after[np.append(first[1:], len(line))[: len(first)] - 1] = first
    return after


def _previous_in(line: NDArray[np.int64]) -> NDArray[np.int64]:
    before = np.empty(len(line), np.int64)
    before[_next_in(line)] = np.arange(len(line))
    return before
