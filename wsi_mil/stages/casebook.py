"""Case reports of some slides of a work folder, as HTML and, where a Chromium is found, as PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.stages.case import case_folder, told_case
from wsi_mil.stages.case_pages import page_of
from wsi_mil.stages.stage import Item
from wsi_mil.stages.work import Work

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")

ENOUGH_S = 120
"""Seconds after which a browser that does not print is given up."""


@dataclass(frozen=True)
class Reported:
    """What was written for a slide, or why nothing was."""

    slide: str
    html: Path | None = None
    pdf: Path | None = None
    why: str = ""


def report_cases(
    work: Work, slides: Sequence[str], folder: Path | None = None, *, browser: str | None = None
) -> Iterator[Reported]:
    """Write SLIDE.html for each slide, and SLIDE.pdf with the browser; no slides means all that are predicted.

    The folder is case/MODEL in the work folder if not given. A slide of `slides` that has no prediction is told with
    the reason, and does not stop the others.
    """
    folder = folder or case_folder(work)
    folder.mkdir(parents=True, exist_ok=True)
    for slide in slides or predicted_slides(work):
        try:
            page = page_of(told_case(slide, work), work)
        except StageError as error:
            yield Reported(slide, why=str(error))
            continue
        html = folder / f"{slide}.html"
        files.write_text(html, page)
        pdf, why = folder / f"{slide}.pdf", ""
        if browser:
            why = print_pdf(html, pdf, browser=browser)
        yield Reported(slide, html, pdf if browser and not why else None, why)


def predicted_slides(work: Work) -> list[str]:
    """Slides with a prediction, in the cohort's order."""
    from wsi_mil.stages.calibrate import read_predicted

    table = read_predicted(work.stage("predict").output(Item("slides"), work))
    return [str(slide) for slide in table["slide"][table["status"] == "predicted"]]


def find_browser() -> str | None:
    """A Chromium, or a browser made of it, that is on the path; None where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_pdf(html: Path, pdf: Path, *, browser: str) -> str:
    """Print a page to PDF without a window; an empty text, or why it did not work. The page loads nothing."""
    with tempfile.TemporaryDirectory() as profile:
        draft = Path(profile) / "page.pdf"
        command = [browser, "--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        # The sandbox of Chromium refuses to start for root, as in containers.
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command += ["--no-pdf-header-footer", f"--print-to-pdf={draft}", html.absolute().as_uri()]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=ENOUGH_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{browser} did not print: {error}"
        if not draft.is_file() or not draft.read_bytes().startswith(b"%PDF-"):
            return f"{browser} did not print (exit code {ended.returncode})"
        files.write_bytes(pdf, draft.read_bytes())
    return ""
