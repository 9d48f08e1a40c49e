"""GeoJSON that a person drew for slides: found by the slide's name, read, and held against the slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shapely.geometry import MultiPolygon

from wsi_mil.errors import StageError
from wsi_mil.grid import SlideRef
from wsi_mil.tissue import clipped, outline_from_geojson

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

PLACEHOLDER = "{slide}"

SUFFIXES = (".geojson", ".json")


def region_file(path: Path, slide: str, work: Work, *, key: str) -> Path:
    """The file that belongs to a slide: in a folder SLIDE.geojson, in a path {slide} stands for the name.

    One plain file will do where the cohort is one slide. Raises StageError, naming the configuration `key`, the slide
    and the file it looked for.
    """
    if PLACEHOLDER in str(path):
        places = [Path(str(path).replace(PLACEHOLDER, slide))]
    elif path.is_dir():
        places = [path / f"{slide}{suffix}" for suffix in SUFFIXES]
    elif not path.exists():
        raise StageError(f"{key} {str(path)!r} does not exist: give a folder, a file, or a path with {PLACEHOLDER}")
    elif len(work.cohort) > 1:
        raise StageError(
            f"{key} is one file, {path.name}, for {len(work.cohort)} slides: give a folder with SLIDE.geojson for "
            f"each, or a path with {PLACEHOLDER}"
        )
    else:
        places = [path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise StageError(f"{key} has nothing for slide {slide!r}: expected {places[0]}")
    return found


def read_regions(path: Path, slide: SlideRef) -> MultiPolygon:
    """The areas of a file, cut to the slide. Raises SlideError for what is no GeoJSON, no area, or not on the slide."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not GeoJSON: it is not UTF-8 text ({error.reason})") from error
    return clipped(outline_from_geojson(text, where=str(path)), slide=slide, where=str(path))
