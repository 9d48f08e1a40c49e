"""A tiny finished study made without training: slides with a planted square, maps that find it, two models."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from shapely.geometry import MultiPolygon
from viewer.driving import settle

from wsi_mil.files import write_bytes, write_json, write_text
from wsi_mil.grid import SlideRef, TileGrid, lay_grid
from wsi_mil.heatmaps import Heatmap, heatmap_to_hdf5
from wsi_mil.layout import record
from wsi_mil.tissue import outline_to_geojson
from wsi_mil.viewer import Cohort, read_cases

SIZE = 2000, 1500
MPP = 0.5
TISSUE = 256, 256, 1792, 1280
LESION = 768, 512, 1024, 768
"""Left, top, right, bottom in level-0 pixels: two by two tiles of 128 pixels."""

GLASS_RGB, TISSUE_RGB, LESION_RGB = (244, 244, 244), (226, 160, 196), (120, 60, 140)
TILE_PX = 128
TOKEN = "a token for tests alone"
CANARY = "SMITH^JOHN"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Planted:
    """The folder of a study, its work folder and the folder of the truth."""

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def truth(self) -> Path:
        return self.root / "truth"

    def cohort(self) -> Cohort:
        return read_cases(self.work, truth=self.truth)


@pytest.fixture
def planted(seen: Planted, tmp_path: Path) -> Planted:
    """A study of a test's own."""
    shutil.copytree(seen.root, tmp_path / "study")
    table = tmp_path / "study" / "work" / "cohort.csv"
    table.write_text(table.read_text().replace(str(seen.root), str(tmp_path / "study")))
    return Planted(tmp_path / "study")


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A study that no test changes."""
    return plant(tmp_path_factory.mktemp("viewer") / "study")


@pytest.fixture(scope="session")
def library() -> None:
    """Skips the test where OpenSeadragon was not fetched."""
    if not (resources.files("wsi_mil.viewer") / "static" / "openseadragon.min.js").is_file():
        pytest.skip("OpenSeadragon was not fetched: run python npm/fetch.py")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
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
    """One that the tests of a module draw in."""
    return plant(tmp_path_factory.mktemp("browser") / "study")


@pytest.fixture(scope="module")
def address(library: None, study: Planted) -> Iterator[str]:
    """`wsi-mil view` as a person starts it."""
    pytest.importorskip("uvicorn", reason="the extra `viewer` is not installed")
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


def plant(root: Path) -> Planted:
    """Slides L1 (with the lesion) and B1 (without), predicted by two models, of which one errs."""
    study = Planted(root)
    for slide in ("L1", "B1"):
        draw_slide(root / "slides" / f"{slide}.tiff", has_lesion=slide == "L1")
        ref = SlideRef(slide, "f" * 64, SIZE, (MPP, MPP), "metadata")
        outline = outline_to_geojson(MultiPolygon([shapely.box(*TISSUE)]), slide=ref)
        write_text(study.work / "tissue" / f"{slide}.geojson", outline)
        for model in ("abmil", "clam"):
            heatmap = draw_map(ref, model=model, finds=slide == "L1" and model == "abmil")
            write_bytes(study.work / "heatmap" / model / slide / f"{slide}.h5", heatmap_to_hdf5(heatmap))
    write_text(study.truth / "L1.geojson", json.dumps(square("Lesion", LESION)))
    paths = {slide: root / "slides" / f"{slide}.tiff" for slide in ("L1", "B1")}
    rows = [f"{slide},{path},{CANARY}-{slide},north,,{slide[0]}" for slide, path in paths.items()]
    write_text(study.work / "cohort.csv", "\n".join(["slide,path,patient,site,mpp,label", *rows, ""]))
    header = "slide,patient,site,label,p_B,p_L,calibrated_L,rejected,predicted,disagreement,models,status,note"
    said = {"abmil": ("L", "B"), "clam": ("B", "B")}
    for model, (of_l, of_b) in said.items():
        table = [
            header,
            f"L1,{CANARY},north,L,0.1,0.9,0.75,False,{of_l},0.02,1,predicted,",
            f"B1,{CANARY},north,B,0.8,0.2,0.3,True,{of_b},0.2,1,predicted,too few tiles (see {root}/cohort.csv)",
            "",
        ]
        write_text(study.work / "predict" / model / "slides.csv", "\n".join(table))
    facts = {"tiles": 100, "unreadable": 0, "faults": {"pen": 30, "blur": 1}}
    write_json(record(study.work / "extract" / "offline", "B1"), {"outcome": "made", "why": "", "facts": facts})
    return study


def draw_slide(path: Path, *, has_lesion: bool) -> None:
    """A pyramid of JPEG tiles whose description and second picture name a patient."""
    rgb = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[:] = GLASS_RGB
    rgb[TISSUE[1] : TISSUE[3], TISSUE[0] : TISSUE[2]] = TISSUE_RGB
    if has_lesion:
        rgb[LESION[1] : LESION[3], LESION[0] : LESION[2]] = LESION_RGB
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for by in (1, 4):
            per_cm = 10_000 / (MPP * by)
            tiff.write(
                rgb[::by, ::by],
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                subfiletype=int(by > 1),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                description=f"Patient = {CANARY}" if by == 1 else None,
                metadata=None,
            )


def draw_map(ref: SlideRef, *, model: str, finds: bool) -> Heatmap:
    """Attention and contribution: high on the lesion where the model finds it, random and low elsewhere."""
    coords, extent, step = lay_grid(ref, size_px=TILE_PX, mpp=MPP)
    middle = coords + TILE_PX / 2
    inside = (
        (middle[:, 0] > TISSUE[0])
        & (middle[:, 0] < TISSUE[2])
        & (middle[:, 1] > TISSUE[1])
        & (middle[:, 1] < TISSUE[3])
    )
    coords, middle = coords[inside], middle[inside]
    is_lesion = (middle[:, 0] > LESION[0]) & (middle[:, 0] < LESION[2])
    is_lesion &= (middle[:, 1] > LESION[1]) & (middle[:, 1] < LESION[3])
    attention = np.random.default_rng(0).uniform(0, 0.1, len(coords))
    contribution = np.full(len(coords), -0.1)
    if finds:
        attention[is_lesion] = 0.9
        contribution[is_lesion] = 1.0
    scores = np.stack([attention, contribution], axis=1).astype(np.float32)
    grid = TileGrid(ref, coords, np.ones(len(coords), np.float32), TILE_PX, MPP, extent, step)
    kinds = {"attention": "attention", "contribution_L": "contribution"}
    return Heatmap(ref, grid, scores, ("attention", "contribution_L"), model, {"B": 0.1, "L": 0.9}, kinds)


def square(name: str, box: tuple[int, int, int, int]) -> dict[str, object]:
    """A GeoJSON of one annotation."""
    geometry = json.loads(shapely.to_geojson(shapely.box(*box)))
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}, "name": CANARY}
    return {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": geometry, "properties": properties}],
    }
