"""In a real Chromium: two views, the address, the list of slides, and names for all controls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from viewer.conftest import LESION_RGB
from viewer.driving import choose, colour, layer, settle, slide_to

pytestmark = pytest.mark.browser


def test_two_views_move_together_until_they_are_parted(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    page.click("#beside")
    page.wait_for_selector(".pane >> nth=1")
    settle(page)
    assert page.locator(".pane").nth(1).get_attribute("data-slide") == "L1"
    page.evaluate("window.viewer.activate(window.viewer.panes[0]); window.viewer.panes[0].look(896, 640, 0.7)")
    settle(page)
    for _ in range(2):
        views = page.evaluate("window.viewer.panes.map((one) => [...one.centre(), one.resolution()])")
        assert views[1] == pytest.approx(views[0], rel=1e-3)
        page.locator(".tile").first.click()
        settle(page)
    page.evaluate("window.viewer.panes[0].look(896, 640, 0.7)")
    settle(page)
    for pane in (0, 1):
        slide_to(page, "opacity", 0)
        assert np.abs(colour(page, (832, 704), pane) - LESION_RGB).max() < 5
    page.locator(".pane").nth(1).locator(".view").click(position={"x": 60, "y": 60})
    choose(page, "B1")
    names = [page.locator(".pane").nth(number).get_attribute("data-slide") for number in (0, 1)]
    assert names == ["L1", "B1"], "the view that was touched shows the slide that is chosen"
    page.click("#link")
    page.evaluate("window.viewer.panes[1].look(400, 400, 2)")
    settle(page)
    assert page.evaluate("window.viewer.panes[0].resolution()") == pytest.approx(0.7, rel=0.01)
    page.click("#link")
    settle(page)
    assert page.evaluate("window.viewer.panes[0].resolution()") == pytest.approx(2, rel=0.01), "at one scale again"


def test_an_address_brings_the_view_back(opened: Callable[..., Any]) -> None:
    page = opened()
    choose(page, "L1")
    layer(page, "attention")
    slide_to(page, "opacity", 0.9)
    page.select_option("#map", "inferno")
    page.keyboard.press("g")
    page.evaluate("window.viewer.panes[0].look(800, 600, 0.9)")
    page.wait_for_url(re.compile(r"av=800\.0.*show=\w*g"))
    kept = page.url
    assert "token" not in kept
    assert "L1" not in kept, "no name of a slide in an address"
    again = opened(kept)
    assert again.locator(".pane").first.get_attribute("data-slide") == "L1"
    x, y, resolution = again.evaluate("(one => [...one.centre(), one.resolution()])(window.viewer.panes[0])")
    assert (x, y, resolution) == pytest.approx((800, 600, 0.9), rel=1e-3)
    assert again.locator("#opacity").input_value() == "0.9"
    assert again.locator("#map").input_value() == "inferno"
    assert again.locator("#show-grid").is_checked()


def test_the_list_is_found_sorted_filtered_and_walked(opened: Callable[..., Any]) -> None:
    page = opened()
    rows = page.locator(".case .name")
    page.select_option("#sort", "score")
    assert rows.all_text_contents() == ["L1", "B1"]
    assert page.locator(".case .score").all_text_contents() == ["0.75", "0.30"], "calibrated where it is known"
    page.select_option("#filter", "flagged")
    assert rows.all_text_contents() == ["B1"]
    assert page.locator(".case .flag").all_text_contents() == ["rejected", "pen 30%"]
    page.select_option("#filter", "")
    page.fill("#find", "l1")
    assert rows.all_text_contents() == ["L1"]
    page.fill("#find", "")
    page.select_option("#model", "clam")
    page.select_option("#filter", "wrong")
    assert rows.all_text_contents() == ["L1"], "the other model misses it"
    page.select_option("#filter", "")
    choose(page, "L1")
    page.locator("#cases").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".pane[data-slide=B1]")
    assert page.locator("[role=option][aria-selected=true] .name").inner_text() == "B1"
    settle(page)


def test_every_control_has_a_name(opened: Callable[..., Any]) -> None:
    page = opened()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")]
            .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
