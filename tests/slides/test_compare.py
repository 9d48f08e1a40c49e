"""Two readers on one slide: that they agree is said, and that they do not is said too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contracts.slide import ArraySlide, textured

from wsi_mil.slides import Slide, compare, survey

Write = Callable[..., Path]


def opened(found: dict[str, Slide | str]) -> dict[str, Slide]:
    return {name: one for name, one in found.items() if isinstance(one, Slide)}


def test_two_readers_of_one_file_agree(write_slide: Write) -> None:
    slides = opened(survey(write_slide(downsamples=(1, 2))))
    assert list(slides) == ["tiff", "openslide"]
    (parts,) = compare(slides).values()
    assert [(part.level, part.worst, part.differing) for part in parts] == [(0, 0, 0.0), (1, 0, 0.0)]


def test_a_difference_is_measured() -> None:
    first = ArraySlide([textured(300, 300)])
    other = ArraySlide([np.minimum(textured(300, 300), 250) + 5])
    ((part,),) = compare({"one": first, "two": other}, regions=4).values()
    assert part.regions == 4
    assert part.worst == 5
    assert part.mean == pytest.approx(5, abs=1)
    assert part.differing > 0.9


def test_a_level_that_only_one_has_is_said_to_be_missing() -> None:
    first = ArraySlide([textured(300, 300), textured(150, 150)])
    other = ArraySlide([textured(300, 300)])
    ((_, part),) = compare({"one": first, "two": other}).values()
    assert part.fault == "no level of 150 x 150 px"


def test_a_survey_says_why_the_others_refuse(write_slide: Write) -> None:
    found = survey(write_slide())
    assert found["dicom"] == "it is no DICOM file, and no folder of them"
    assert found["ome-zarr"] == "it is no folder of OME-Zarr"
