"""Names that are safe as files, and those that are not."""

from __future__ import annotations

import pytest

from wsi_mil.layout import folder_name, id_problem


@pytest.mark.parametrize("name", ["A1", "TCGA-3X-AAVA-01Z-00-DX1", "slide 7", "ü", "😐", "a.b"])
def test_safe_ids(name: str) -> None:
    assert id_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", " a", "../x", "/abs", "..\\x", "a/b", "a\0b", "a\nb", "x" * 300, "CON", "con.svs", "nul", "-rf", ".x", "a."],
)
def test_unsafe_ids(name: str) -> None:
    assert id_problem(name)


def test_folder_names() -> None:
    assert folder_name("timm:vit_small_patch16_224.dino") == "timm-vit_small_patch16_224.dino"
    assert folder_name("../..") == "unnamed"
