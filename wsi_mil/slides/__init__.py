"""Pixels in: a slide is a pyramid of pixels with a scale, whatever the file is."""

from wsi_mil.slides.compare import Difference, compare
from wsi_mil.slides.detect import READERS, open_slide, survey
from wsi_mil.slides.fingerprint import same_files
from wsi_mil.slides.regions import picture_of
from wsi_mil.slides.slide import Slide
from wsi_mil.slides.tiles import TileBatch, read_tiles

__all__ = [
    "READERS",
    "Difference",
    "Slide",
    "TileBatch",
    "compare",
    "open_slide",
    "picture_of",
    "read_tiles",
    "same_files",
    "survey",
]
