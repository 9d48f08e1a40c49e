"""A work folder and its slides: how each is opened."""

from __future__ import annotations

from collections.abc import Callable

from wsi_mil.slides.source import LocalSource, MappedSource
from wsi_mil.stages import Work
from wsi_mil.stages.work import open_item


def test_a_study_may_have_its_slides_mapped_into_memory(copy_of: Callable[..., Work]) -> None:
    work = copy_of()
    assert {type(vars(open_item(item))["_source"]) for item in work.slide_items()} == {LocalSource}
    runtime = work.study.runtime.model_copy(update={"memory_map": True})
    mapped = Work(work.root, work.study.model_copy(update={"runtime": runtime}))
    assert {type(vars(open_item(item))["_source"]) for item in mapped.slide_items()} == {MappedSource}
