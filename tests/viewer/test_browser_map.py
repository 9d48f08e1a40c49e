"""In a real Chromium: what lies under the heatmap, and everything that is drawn over the slide."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from viewer.conftest import LESION, LESION_RGB, TISSUE_RGB
from viewer.driving import HIGHEST, IN_LESION, IN_TISSUE, choose, colour, layer, on_screen, settle, slide_to

pytestmark = pytest.mark.browser


def test_the_lesion_lies_under_its_scores_at_any_opacity(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    layer(page, "attention")
    slide_to(page, "opacity", 1)
    assert np.abs(colour(page, IN_LESION) - HIGHEST).max() < 12, "the four highest share their rank near the top"
    left, top, right, bottom = LESION
    for x, y in ((left, top), (right, top), (left, bottom), (right, bottom)):
        inwards = (x + 24 if x == left else x - 24), (y + 24 if y == top else y - 24)
        outwards = (x - 24 if x == left else x + 24), (y - 24 if y == top else y + 24)
        assert np.abs(colour(page, inwards) - HIGHEST).max() < 12
        assert np.abs(colour(page, outwards) - HIGHEST).max() > 15
    slide_to(page, "opacity", 0)
    assert np.abs(colour(page, IN_LESION) - LESION_RGB).max() < 5
    assert np.abs(colour(page, IN_TISSUE) - TISSUE_RGB).max() < 5
    slide_to(page, "opacity", 0.5)
    half = (np.asarray(HIGHEST) + LESION_RGB) / 2
    assert np.abs(colour(page, IN_LESION) - half).max() < 12


def test_the_map_turns_and_zooms_with_the_slide(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    layer(page, "attention")
    slide_to(page, "opacity", 1)
    page.keyboard.press("r")
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.evaluate("window.viewer.panes[0].look(896, 640, 0.8)")
    settle(page)
    assert np.abs(colour(page, IN_LESION) - HIGHEST).max() < 12
    assert np.abs(colour(page, (896, LESION[1] - 20)) - HIGHEST).max() > 15
    page.wait_for_url(re.compile("rotation=90"))


def test_layers_models_and_colours_change_the_map(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    slide_to(page, "opacity", 1)
    layer(page, "contribution_L")
    red = colour(page, IN_LESION)
    assert red[0] > red[2] + 40, "for the class"
    page.select_option("#signedMap", "brown-teal")
    settle(page)
    teal = colour(page, IN_LESION)
    assert teal[1] > teal[0] + 40
    page.locator("select[aria-label=Model]").select_option("clam")
    settle(page)
    assert np.abs(colour(page, IN_LESION) - teal).max() > 40, "this model does not find it"
    page.keyboard.press("1")
    page.wait_for_selector(".pane[data-channel=attention]")
    page.keyboard.press("h")
    settle(page)
    assert np.abs(colour(page, IN_LESION) - LESION_RGB).max() < 5


def test_what_lies_over_the_slide_is_drawn(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    page.keyboard.press("h")
    settle(page)
    places = {"t": (LESION[0] + 1, 700), "c": (257, 700), "g": (1280, 700)}
    for key, place in places.items():
        around = [(place[0] + dx, place[1] + dy) for dx in (-2, 0, 2) for dy in (-14, 0, 14)]
        before = [colour(page, one) for one in around]
        page.keyboard.press(key)
        settle(page)
        changed = [np.abs(colour(page, one) - old).max() for one, old in zip(around, before, strict=True)]
        assert max(changed) > 25, f"key {key}"


def test_the_scale_bar_is_as_long_as_it_says(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    page.evaluate("window.viewer.panes[0].look(900, 600, 1.3)")
    settle(page)
    bar = page.locator(".scale").first
    value, unit = bar.inner_text().split()
    assert unit == "µm"
    assert bar.bounding_box()["width"] * 1.3 * 0.5 == pytest.approx(float(value), rel=0.02)


def test_tiles_jump_to_their_places(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    layer(page, "attention")
    page.locator(".tile").first.click()
    settle(page)
    x, y = page.evaluate("window.viewer.panes[0].centre()")
    assert LESION[0] < x < LESION[2]
    assert LESION[1] < y < LESION[3]
    assert page.locator(".tile img").first.evaluate("one => one.naturalWidth") > 0


def test_a_picture_shows_what_is_seen_with_its_legend(opened: Callable[..., Any], tmp_path: Path) -> None:
    page = opened()
    choose(page, "L1")
    layer(page, "attention")
    slide_to(page, "opacity", 1)
    with page.expect_download() as saved:
        page.click("#shot")
    saved.value.save_as(tmp_path / "L1.png")
    picture = np.asarray(Image.open(tmp_path / "L1.png").convert("RGB")).astype(int)
    box = page.locator(".view").first.bounding_box()
    x, y = on_screen(page, IN_LESION)
    assert np.abs(picture[y - round(box["y"]), x - round(box["x"])] - HIGHEST).max() < 12
    foot = picture[round(box["height"]) :]
    for end in ((68, 1, 84), HIGHEST):
        assert (np.abs(foot - end).max(axis=2) < 6).any(), "the legend has both ends of the map"
