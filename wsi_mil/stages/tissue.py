"""Slide to outline: where the tissue is, as a GeoJSON that a person can edit in QuPath and put back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from wsi_mil import encoders, files
from wsi_mil.compute import cores
from wsi_mil.config import StudyPath
from wsi_mil.errors import EmptyItem, SlideError, StageError
from wsi_mil.slides import Slide
from wsi_mil.stages.regions import read_regions, region_file
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import (
    TissueFound,
    draw_outline,
    find_tissue,
    load_network,
    mask_to_outline,
    outline_to_geojson,
    tidied,
    whole_slide,
)

if TYPE_CHECKING:
    from shapely.geometry import MultiPolygon

    from wsi_mil.tissue import TissueNetwork

NEEDS = {"geojson": "outlines", "model": "weights"}
"""Which further field a method needs."""

MAX_PICTURE_PX = 8192
"""Longer side of the picture that is searched, at most: a slide with a wrong, tiny scale asks for no more."""


class Tissue(Stage):
    """Find the tissue of each slide."""

    name: ClassVar[str] = "tissue"
    editable: ClassVar[bool] = True

    method: Literal["otsu", "hsv", "geojson", "model", "none"] = "otsu"
    """otsu: threshold on saturation and optical density, pen dropped; hsv: CLAM's, threshold on saturation;
    geojson: yours, from `outlines`; model: a segmentation network, from `weights`; none: the whole slide is tissue."""
    mpp: float = Field(default=8.0, gt=0)
    """Scale of the picture that is searched, micrometres per pixel; 8 shows glands and hides nuclei. CLAM looks at
    16 to 32. A network says its own."""
    min_area_um2: float = Field(default=10_000.0, ge=0)
    """Smallest piece kept: 10,000 square micrometres is a 100 um square, smaller than any biopsy."""
    hole_um2: float = Field(default=10_000.0, ge=0)
    """Holes up to this size are filled."""
    close_um: float = Field(default=40.0, ge=0)
    """Gaps up to this width are closed (otsu)."""
    open_um: float = Field(default=20.0, ge=0)
    """Threads up to this width are dropped (otsu)."""
    saturation: int = Field(default=8, ge=0, le=254)
    """Saturation, of 255, above which a pixel is tissue (hsv); 0 takes Otsu's threshold."""
    outlines: StudyPath | None = None
    """Outlines of geojson: a folder with SLIDE.geojson, or a path with {slide} in it; level-0 pixels."""
    weights: StudyPath | None = None
    """Network of model: a safetensors file that says its architecture, scale, patch and classes."""
    thumbnail_px: int = Field(default=1200, ge=64)
    """Longer side of the thumbnail with the outline drawn on it."""

    @property
    def after(self) -> tuple[str, ...]:
        """Nothing: it starts from the slides."""
        return ()

    def folder(self, work: Work) -> Path:
        """tissue/."""
        return work.root / self.name

    def items(self, work: Work) -> list[Item]:
        """The slides."""
        needed = NEEDS.get(self.method)
        if needed and getattr(self, needed) is None:
            raise StageError(f"tissue.method is {self.method}: say in tissue.{needed} where its file lies")
        return work.slide_items()

    def output(self, item: Item, work: Work) -> Path:
        """The outline."""
        return self.folder(work) / f"{item.name}.geojson"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """Size of the slide's file and the scale given for it: hashing 50,000 slides at each start would take hours.

        Of methods that read a file of yours, its content too.
        """
        told = [str(slide_size(item.path)), repr(item.mpp)]
        if self.method == "geojson":
            told.append(files.digest_file(self._outline_file(item, work)))
        if self.method == "model":
            told.append(_network_of(self.weights, work.study.runtime.device).digest)
        return told

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Find the tissue; beside the outline lies a thumbnail with its contours."""
        with open_item(item) as slide:
            ref = slide.ref()
            thumbnail: np.ndarray | None = None
            found: TissueFound | None = None
            if self.method == "none":
                outline = whole_slide(ref)
            elif self.method == "geojson":
                outline = read_regions(self._outline_file(item, work), ref)
            else:
                thumbnail, found, outline = self._search(slide, work)
            self._draw(slide, outline, thumbnail, self.output(item, work).with_suffix(".png"))
            if outline.is_empty:
                told = found.explain() if found else ""
                raise EmptyItem(
                    f"no tissue found ({told}): look at the thumbnail, or draw an outline and save it as GeoJSON there"
                )
            draft.write_text(outline_to_geojson(outline, slide=ref), encoding="utf-8")
        square_mm = outline.area * ref.mpp[0] * ref.mpp[1] / 1e6
        return {
            "tissue_mm2": round(square_mm, 4),
            "pieces": len(outline.geoms),
            "slide_mm2": round(ref.size_l0[0] * ref.size_l0[1] * ref.mpp[0] * ref.mpp[1] / 1e6, 4),
            "mpp": list(ref.mpp),
            "mpp_source": ref.mpp_source,
            "size_l0": list(ref.size_l0),
            "steps": found.explain() if found else self.method,
        }

    def _search(self, slide: Slide, work: Work) -> tuple[np.ndarray, TissueFound, MultiPolygon]:
        """The picture that was searched, what was found on it, and its outline."""
        network = _network_of(self.weights, work.study.runtime.device) if self.method == "model" else None
        rgb, downsample = slide.overview(max_px=_picture_px(slide, network.mpp if network else self.mpp), patch=True)
        mpp = (slide.mpp[0] * downsample[0], slide.mpp[1] * downsample[1])
        if network:
            encoders.limit_threads(work.study.runtime.threads or cores())
            found = TissueFound(network.find(rgb), mpp).after("segmented")
            found = tidied(found, min_area_um2=self.min_area_um2, hole_um2=self.hole_um2)
        else:
            found = find_tissue(
                rgb,
                mpp=mpp,
                method=self.method,
                min_area_um2=self.min_area_um2,
                hole_um2=self.hole_um2,
                close_um=self.close_um,
                open_um=self.open_um,
                saturation=self.saturation,
            )
        return rgb, found, mask_to_outline(found.mask, downsample)

    def _outline_file(self, item: Item, work: Work) -> Path:
        assert self.outlines is not None  # items() has checked
        return region_file(self.outlines, item.name, work, key="tissue.outlines")

    def _draw(self, slide: Slide, outline: MultiPolygon, rgb: np.ndarray | None, path: Path) -> None:
        from PIL import Image

        if rgb is None or max(rgb.shape[:2]) < self.thumbnail_px:
            rgb, downsample = slide.overview(max_px=self.thumbnail_px, patch=True)
        else:
            picture = Image.fromarray(rgb)
            picture.thumbnail((self.thumbnail_px, self.thumbnail_px), Image.Resampling.BOX)
            rgb = np.asarray(picture)
            downsample = slide.size_l0[0] / picture.width, slide.size_l0[1] / picture.height
        data = io.BytesIO()
        # The lowest compression: the files grow by a tenth, and writing takes a third of the time.
        Image.fromarray(draw_outline(rgb, outline, downsample)).save(data, format="png", compress_level=1)
        files.write_bytes(path, data.getvalue())


def slide_size(path: str) -> int:
    """Bytes of a slide's file, 0 behind a URL. Raises SlideError where it is not there."""
    if "://" in path:
        return 0
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise SlideError(f"the slide {path!r} cannot be read: {error.strerror or error}") from error


def _picture_px(slide: Slide, mpp: float) -> int:
    longer_um = max(side * scale for side, scale in zip(slide.size_l0, slide.mpp, strict=True))
    return int(min(max(64, round(longer_um / mpp)), MAX_PICTURE_PX))


def _network_of(path: Path | None, device: str) -> TissueNetwork:
    assert path is not None  # items() has checked
    changed_ns = path.stat().st_mtime_ns if path.exists() else 0
    return _load(path, changed_ns, encoders.choose_device(device))


@lru_cache(maxsize=1)
def _load(path: Path, changed_ns: int, device: str) -> TissueNetwork:
    """The network, loaded once a process."""
    return load_network(path, device=device)
