"""Every face keeps its word: each public name is there, and a wrong one says so."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wsi_mil"
FACES = ["wsi_mil", *sorted(f"wsi_mil.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py"))]


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_there(face: str) -> None:
    module = import_module(face)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("face", FACES)
def test_a_wrong_name_is_an_attribute_error(face: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        import_module(face).no_such_name  # noqa: B018
