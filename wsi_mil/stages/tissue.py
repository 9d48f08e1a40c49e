"""Slide to outline: where the tissue is, as a GeoJSON that a person can edit in QuPath and put back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from wsi_mil import files
from wsi_mil.errors import EmptyItem, SlideError
from wsi_mil.slides import Slide
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import draw_outline, find_tissue, mask_to_outline, outline_to_geojson, whole_slide


class Tissue(Stage):
    """Find the tissue of each slide."""

    name: ClassVar[str] = "tissue"
    editable: ClassVar[bool] = True

    method: Literal["otsu", "none"] = "otsu"
    """otsu: threshold on saturation and optical density; none: the whole slide is tissue."""
    mpp: float = Field(default=8.0, gt=0)
    """Scale of the picture that is searched, micrometres per pixel; 8 shows glands and hides nuclei."""
    min_area_um2: float = Field(default=10_000.0, ge=0)
    """Smallest piece kept: 10,000 square micrometres is a 100 um square, smaller than any biopsy."""
    hole_um2: float = Field(default=10_000.0, ge=0)
    """Holes up to this size are filled."""
    close_um: float = Field(default=40.0, ge=0)
    """Gaps up to this width are closed."""
    open_um: float = Field(default=20.0, ge=0)
    """Threads up to this width are dropped."""
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
        return work.slide_items()

    def output(self, item: Item, work: Work) -> Path:
        """The outline."""
        return self.folder(work) / f"{item.name}.geojson"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """Size of the slide's file and the scale given for it: hashing 50,000 slides at each start would take hours."""
        return [str(slide_size(item.path)), repr(item.mpp)]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Find the tissue; beside the outline lies a thumbnail with its contours."""
        with open_item(item) as slide:
            ref = slide.ref()
            if self.method == "none":
                outline = whole_slide(ref)
            else:
                rgb, downsample = slide.overview(max_px=self._picture_px(slide))
                mask = find_tissue(
                    rgb,
                    mpp=(slide.mpp[0] * downsample[0], slide.mpp[1] * downsample[1]),
                    method=self.method,
                    min_area_um2=self.min_area_um2,
                    hole_um2=self.hole_um2,
                    close_um=self.close_um,
                    open_um=self.open_um,
                )
                outline = mask_to_outline(mask, downsample)
            self._draw(slide, outline, self.output(item, work).with_suffix(".png"))
            if outline.is_empty:
                raise EmptyItem(
                    "no tissue found: look at the thumbnail, or draw an outline and save it as GeoJSON there"
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
        }

    def _picture_px(self, slide: Slide) -> int:
        longer_um = max(side * mpp for side, mpp in zip(slide.size_l0, slide.mpp, strict=True))
        # Bounded, so that a slide with a wrong, tiny scale does not ask for a picture of its full size.
        return int(min(max(64, round(longer_um / self.mpp)), 8192))

    def _draw(self, slide: Slide, outline: Any, path: Path) -> None:
        import io

        from PIL import Image

        rgb, downsample = slide.overview(max_px=self.thumbnail_px)
        picture = io.BytesIO()
        Image.fromarray(draw_outline(rgb, outline, downsample)).save(picture, format="png")
        files.write_bytes(path, picture.getvalue())


def slide_size(path: str) -> int:
    """Bytes of a slide's file. Raises SlideError where it is not there."""
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise SlideError(f"the slide {path!r} cannot be read: {error.strerror or error}") from error
