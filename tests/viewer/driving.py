"""How the tests drive the page: wait until it rests, choose, draw, and look at the screen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from wsi_mil.viewer.cases import key_of

HIGHEST = (253, 231, 37)
"""The end of viridis."""

IN_LESION, IN_TISSUE = (896, 640), (1472, 960)
"""Places of level 0: in the middle of the lesion's tiles, and in the tissue."""

RESTS = """() => window.viewer.panes.every((one) => {
    const world = one.viewer.world;
    return world.getItemCount() && !world.needsDraw() && world.getItemAt(0).getFullyLoaded();
})"""


def settle(page: Any) -> None:
    """Wait until every tile is there and nothing moves, twice in a row."""
    rested = 0
    for _ in range(200):
        page.wait_for_timeout(40)
        rested = rested + 1 if page.evaluate(RESTS) else 0
        if rested == 2:
            return
    raise AssertionError("the view never comes to rest")


def choose(page: Any, slide: str) -> None:
    page.click(f"#case-{key_of(slide)}")
    page.wait_for_selector(f".pane[data-slide={slide}]")
    settle(page)


def on_screen(page: Any, place: tuple[float, float], pane: int = 0) -> tuple[int, int]:
    """Where a place of level 0 is seen."""
    x, y = page.evaluate(
        """([pane, x, y]) => {
            const one = window.viewer.panes[pane], box = one.element.getBoundingClientRect();
            const [a, b, c, d, e, f] = one.transform(), by = window.devicePixelRatio;
            return [box.left + (a * x + c * y + e) / by, box.top + (b * x + d * y + f) / by];
        }""",
        [pane, *place],
    )
    return round(x), round(y)


def colour(page: Any, place: tuple[float, float], pane: int = 0) -> np.ndarray:
    """Mean colour of three by three pixels of the screen."""
    x, y = on_screen(page, place, pane)
    data = page.screenshot(clip={"x": x - 1, "y": y - 1, "width": 3, "height": 3})
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3).mean(axis=0)


def slide_to(page: Any, control: str, value: float) -> None:
    page.locator(f"#{control}").evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input', { bubbles: true })); }", value
    )
    settle(page)


def layer(page: Any, name: str, pane: int = 0) -> None:
    page.locator("select[aria-label=Layer]").nth(pane).select_option(name)
    page.wait_for_selector(f".pane[data-channel={name}] >> nth=0")
    settle(page)


def drawn(page: Any, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    page.mouse.move(*on_screen(page, (left, top)))
    page.mouse.down()
    page.mouse.move(*on_screen(page, ((left + right) / 2, (top + bottom) / 2)))
    page.mouse.move(*on_screen(page, (right, bottom)))
    page.mouse.up()
