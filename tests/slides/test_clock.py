"""Where the time of reading goes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from contracts.slide import textured
from slides.test_tiles import grid_of

from wsi_mil.slides import open_slide, read_tiles
from wsi_mil.slides.clock import Clock

Write = Callable[..., Path]


def test_decoding_is_what_is_left() -> None:
    clock = Clock()
    for step, seconds in (("busy", 5.0), ("fetch", 1.0), ("transform", 1.5), ("busy", 1.0)):
        clock.add(step, seconds)
    assert clock.steps == {"fetch": 1.0, "decode": 3.5, "transform": 1.5}
    assert pickle.loads(pickle.dumps(clock)).steps["decode"] == 0


@pytest.mark.parametrize(("mpp", "transforms"), [(0.5, False), (0.8, True)])
def test_reading_tiles_tells_its_steps(write_slide: Write, mpp: float, transforms: bool) -> None:
    with open_slide(write_slide(rgb=textured(900, 700))) as slide:
        list(read_tiles(slide, grid_of(slide, mpp=mpp), batch_size=8, threads=2))
        steps = slide.clock.steps
    assert steps["fetch"] > 0
    assert steps["decode"] > 0
    assert (steps["transform"] > 0) is transforms
