"""The page in a real Chromium: what lies under the heatmap, every control, what is saved, what is asked of whom."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from viewer.conftest import LESION, LESION_RGB, TISSUE_RGB, TOKEN, Planted, plant

from wsi_mil.viewer import export_viewer, read_cases
from wsi_mil.viewer.cases import key_of

pytestmark = pytest.mark.browser
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra `viewer` is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HIGHEST = (253, 231, 37)
"""The end of viridis."""

IN_LESION, IN_TISSUE = (896, 640), (1472, 960)
"""Places of level 0: in the middle of the lesion's tiles, and in the tissue."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--force-color-profile=srgb",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("browser") / "study")


@pytest.fixture(scope="module")
def address(library: None, study: Planted) -> Iterator[str]:
    """`wsi-mil view` as a person starts it."""
    command = [sys.executable, "-m", "wsi_mil", "view", str(study.work), "--truth", str(study.truth), "--port", "0"]
    environment = {**os.environ, "WSI_MIL_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        found = None
        while found is None:
            line = server.stdout.readline()
            assert line, "the server ended before it told its address"
            found = re.match(r"open\s+(http://\S.*)$", line)
        yield found[1].strip()
        server.terminate()


@pytest.fixture
def opened(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the viewer, and at the end holds against it every error and every request that left this machine."""
    context = chromium.new_context(viewport={"width": 1300, "height": 800}, reduced_motion="reduce")
    faults: list[str] = []
    asked: list[str] = []

    def open_page(url: str = address) -> Any:
        page = context.new_page()
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        settle(page)
        return page

    yield open_page
    context.close()
    assert faults == []
    host = address.split("/?")[0]
    assert [url for url in asked if not url.startswith((host, "data:", "blob:", "file:"))] == []


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


def drawn(page: Any, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    page.mouse.move(*on_screen(page, (left, top)))
    page.mouse.down()
    page.mouse.move(*on_screen(page, ((left + right) / 2, (top + bottom) / 2)))
    page.mouse.move(*on_screen(page, (right, bottom)))
    page.mouse.up()


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
