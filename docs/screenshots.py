"""Take the pictures of the viewer for the README from the demo, in a Chromium of this machine.

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
        browser.close()


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
