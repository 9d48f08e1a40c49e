"""A cohort of synthetic slides on disk: pyramidal TIFFs, ground truth and the cohort table."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsi_mil.errors import ConfigError
from wsi_mil.files import drafted, write_text
from wsi_mil.synthetic.labels import OUTCOMES, outcomes
from wsi_mil.synthetic.nuclei import Grain
from wsi_mil.synthetic.paint import SITES, paint
from wsi_mil.synthetic.scene import draw_scene, truth_geojson

LABELS = ("benign", "lesion")
MPP = 0.5
SHRINK = 4
LEVELS = 3
"""Levels at 1, 4 and 16 level-0 pixels per pixel, as scanners write them."""

TILE_PX = 256
LEAST_SIDE_PX = 800
"""Below this there is no room for glass, tissue and lesions."""

JPEG_QUALITY = 80


def draw_cohort(folder: Path, *, slides: int = 24, seed: int = 0, side_px: tuple[int, int] = (3000, 4400)) -> Path:
    """Write `slides` slides of 0.5 um/px with sides in the given range; return the path of their cohort table.

    folder/slides/*.tiff are pyramidal JPEG TIFFs, folder/truth/<slide>.geojson holds Tissue, Lesion, Pen and Fold in
    level-0 pixels, folder/cohort.csv has slide, patient, label, site and the columns of `OUTCOMES`. Labels and sites
    are balanced; some patients have two slides of one label. The same seed draws the same pixels.
    """
    if not LEAST_SIDE_PX <= side_px[0] <= side_px[1]:
        raise ConfigError(
            f"synthetic slides of {side_px} px: give two sides, the lesser first, of {LEAST_SIDE_PX} px up"
        )
    rows = _rows(slides)
    grain = Grain(np.random.default_rng([seed, 0]))
    drawn: Counter[tuple[str, str]] = Counter()
    scenes = []
    for number, row in enumerate(rows):
        rng = np.random.default_rng([seed, 1, number])
        site = SITES[[site.name for site in SITES].index(row["site"])]
        # Artefacts go round within each pair of label and site, so that they tell neither.
        cell = row["label"], row["site"]
        scene = draw_scene(rng, side_px, is_positive=row["label"] == LABELS[1], artefact=drawn[cell] % 3)
        drawn[cell] += 1
        scenes.append(scene)
        write_text(folder / "truth" / f"{row['slide']}.geojson", truth_geojson(scene))
        with drafted(folder / "slides" / f"{row['slide']}.tiff") as draft:
            _write_tiff(draft, paint(scene, site, grain, rng))
    told = outcomes([row["patient"] for row in rows], scenes, seed=seed)
    with drafted(folder / "cohort.csv") as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["slide", "patient", "label", "site", *OUTCOMES], lineterminator="\n")
        writer.writeheader()
        writer.writerows([{**row, **one} for row, one in zip(rows, told, strict=True)])
    return folder / "cohort.csv"


def _rows(slides: int) -> list[dict[str, str]]:
    """The cohort: patients take labels and sites in turn, and of every three rounds the first has two slides each."""
    rows: list[dict[str, str]] = []
    patient = 0
    while len(rows) < slides:
        label, site = LABELS[patient % 2], SITES[patient // 2 % 2].name
        for _ in range(2 if patient // 4 % 3 == 0 else 1):
            rows.append(
                {"slide": f"S{len(rows) + 1:02d}", "patient": f"P{patient + 1:02d}", "label": label, "site": site}
            )
        patient += 1
    return rows[:slides]


def _write_tiff(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """A tiled JPEG pyramid whose resolution tag gives OpenSlide the scale."""
    import tifffile

    with tifffile.TiffWriter(path) as tiff:
        for level in range(LEVELS):
            downsample = SHRINK**level
            per_cm = 10_000 / (MPP * downsample)
            tiff.write(
                rgb if level == 0 else _shrunk(rgb, downsample),
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                subfiletype=1 if level else 0,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software="wsi_mil synthetic" if level == 0 else False,
                metadata=None,
            )


def _shrunk(rgb: UInt8[np.ndarray, "h w 3"], downsample: int) -> UInt8[np.ndarray, "h_lv w_lv 3"]:
    """The picture at about 1/downsample, so that it covers exactly the whole slide: its scale is no whole number."""
    height, width, _ = rgb.shape
    size = max(1, round(width / downsample)), max(1, round(height / downsample))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
