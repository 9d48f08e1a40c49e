"""In a real Chromium: what is drawn is saved, and a folder opens from disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewer.conftest import LESION_RGB, TISSUE_RGB, Planted
from viewer.driving import HIGHEST, IN_LESION, IN_TISSUE, choose, colour, drawn, layer, on_screen, slide_to

from wsi_mil.viewer import export_viewer, read_cases

pytestmark = pytest.mark.browser


def test_regions_and_tissue_are_drawn_and_saved(opened: Callable[..., Any], study: Planted) -> None:
    page = opened()
    choose(page, "B1")
    page.fill("#class-name", "Suspect")
    page.click("button[data-tool=rectangle]")
    drawn(page, (600, 500, 900, 800))
    page.click("button[data-tool=region]")
    for place in ((1100, 500), (1400, 500), (1400, 800)):
        page.mouse.click(*on_screen(page, place))
        page.wait_for_timeout(320)  # two clicks in less are a double-click
    page.keyboard.press("Enter")
    assert page.locator(".regions .plain").all_text_contents() == ["Suspect", "Suspect"]
    page.click("button[data-tool=exclude]")
    drawn_ring = ((200, 200), (1000, 200), (1000, 1400), (200, 1400))
    for place in drawn_ring:
        page.mouse.click(*on_screen(page, place))
        page.wait_for_timeout(320)
    page.keyboard.press("Enter")
    page.click("#save")
    page.wait_for_selector("#save[disabled]")
    told = json.loads((study.work / "annotations" / "B1.geojson").read_text())["features"]
    assert {one["properties"]["classification"]["name"] for one in told} == {"Suspect"}
    xs, ys = zip(*told[0]["geometry"]["coordinates"][0], strict=True)
    assert (min(xs), min(ys), max(xs), max(ys)) == pytest.approx((600, 500, 900, 800), abs=3)
    tissue = json.loads((study.work / "tissue" / "B1.geojson").read_text())["features"]
    left = min(x for one in tissue for x, _ in one["geometry"]["coordinates"][0])
    assert left == pytest.approx(1000, abs=3)
    again = opened()
    choose(again, "B1")
    assert again.locator(".regions .plain").count() == 2


def test_a_folder_opens_from_disk(library: None, opened: Callable[..., Any], study: Planted, tmp_path: Path) -> None:
    told = export_viewer(read_cases(study.work, truth=study.truth), tmp_path / "out", only=["L1"])
    assert (told.slides, told.left_out) == (1, {})
    assert told.bytes < 1_500_000
    assert b"SMITH" not in b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    page = opened((tmp_path / "out" / "index.html").as_uri())
    assert page.locator(".case .name").all_text_contents() == ["L1"]
    layer(page, "attention")
    slide_to(page, "opacity", 1)
    assert np.abs(colour(page, IN_LESION) - HIGHEST).max() < 12
    slide_to(page, "opacity", 0)
    assert np.abs(colour(page, IN_LESION) - LESION_RGB).max() < 5
    assert np.abs(colour(page, IN_TISSUE) - TISSUE_RGB).max() < 5
    assert page.locator(".tile img").first.evaluate("one => one.naturalWidth") > 0
    assert page.locator("#draw").is_hidden()
