"""Take the pictures of the viewer and the report for the README from the demo, in a Chromium of this machine.

    python docs/screenshots.py DEMO OUT

Run by `make screenshots`. DEMO is the folder of `wsi-mil demo`; each picture is a PNG of a palette of 256 colours.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

SIZE = {"width": 1280, "height": 760}
SLIDE = "S03"
MOST_BYTES = 300_000

SHOWN = ("top", "performance", "heatmaps")
"""Places of the report that its picture shows side by side."""

COLUMN = {"width": 1100, "height": 1420}
GAP_PX = 24


def main(demo: Path, out: Path) -> None:
    """Serve the demo, set up each view, and keep a picture of it."""
    out.mkdir(parents=True, exist_ok=True)
    with served(demo) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, reduced_motion="reduce")
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.locator(".case", has=page.get_by_text(SLIDE, exact=True)).click()
        page.wait_for_selector(f".pane[data-slide={SLIDE}]")
        page.keyboard.press("t")
        keep(page, out / "viewer.png")
        page.click("#beside")
        page.wait_for_selector(".pane >> nth=1")
        page.wait_for_timeout(500)
        page.locator(".tile").first.click()
        page.keyboard.press("g")
        keep(page, out / "viewer-beside.png")
        report(browser, demo / "run" / "report" / "index.html", out / "report.png")
        browser.close()


def report(browser: Any, page_file: Path, path: Path) -> None:
    """Three places of the study's report side by side, at half their size."""
    page = browser.new_page(viewport=COLUMN)
    page.goto(page_file.absolute().as_uri())
    width, height = COLUMN["width"] // 2, COLUMN["height"] // 2
    sheet = Image.new("RGB", (len(SHOWN) * (width + GAP_PX) + GAP_PX, height + 2 * GAP_PX), "#d7dade")
    for number, anchor in enumerate(SHOWN):
        page.evaluate("name => document.getElementById(name).scrollIntoView()", anchor)
        shot = (
            Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        )
        sheet.paste(shot, (GAP_PX + number * (width + GAP_PX), GAP_PX))
    save(sheet, sheet, path)


def keep(page: Any, path: Path) -> None:
    """A screenshot when everything has been drawn."""
    page.mouse.move(5, 5)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(800)
    page.evaluate("document.activeElement.blur()")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    # The palette of a picture in which the legend is as large as the slide, or its colours would be merged.
    width, height = picture.size
    sample = Image.new("RGB", (width, height))
    sample.paste(picture.resize((width, height // 2), Image.Resampling.NEAREST))
    ramps = page.locator(".ramp canvas").all()
    for number, ramp in enumerate(ramps):
        box = ramp.bounding_box()
        part = picture.crop((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]))
        part = part.resize((width // len(ramps), height // 2), Image.Resampling.NEAREST)
        sample.paste(part, (number * width // len(ramps), height // 2))
    save(picture, sample, path)


def save(picture: Image.Image, sample: Image.Image, path: Path) -> None:
    """A PNG of the palette of a sample, with as many colours as its size allows."""
    for colours in (256, 192, 128, 96, 64):
        palette = sample.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=2)
        buffer = io.BytesIO()
        picture.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() < MOST_BYTES:
            break
    path.write_bytes(buffer.getvalue())


@contextmanager
def served(demo: Path) -> Iterator[str]:
    """The address of a viewer of the demo."""
    command = [sys.executable, "-m", "wsi_mil", "view", str(demo / "run"), "--truth", str(demo / "cohort" / "truth")]
    environment = {**os.environ, "WSI_MIL_TOKEN": secrets.token_urlsafe(24)}
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        found = None
        while found is None:
            found = re.match(r"open\s+(\S+)", server.stdout.readline())
        yield found[1]
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
