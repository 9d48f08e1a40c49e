"""The house keeps its shape: floors, faces, short files, and a first sentence in each."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wsi_mil"
FLOORS = [
    {"errors", "files", "version"},
    {"geometry"},
    {"grid", "layout"},
    {"slides", "tissue", "encoders", "bags", "cohort", "tasks", "models", "evaluation", "heatmaps", "synthetic"}
    | {"config", "compute"},
    {"training", "report", "viewer"},
    {"stages"},
    {"console"},
    {"demo", "commands", "judging"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == "wsi_mil"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_through_faces(path: Path) -> None:
    room = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if len(parts) == 1 or parts[1] == room:
            continue
        assert FLOOR[parts[1]] < FLOOR[room], f"{room} imports {name}: not below it"
        assert len(parts) == 2 or room in ("__init__",), f"{room} imports {name}: not a face"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_opens_with_one_sentence_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a file opens by saying what it is for"
    assert len(text.splitlines()) <= 300, "a file stays under 300 lines"
    assert len(path.relative_to(PACKAGE).parts) <= 2, "folders are one deep"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_stay_short_and_nothing_prints(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body_start = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert (node.end_lineno or 0) - body_start.lineno < 40, f"{node.name} is longer than 40 lines"


@pytest.mark.parametrize("module", ["wsi_mil", "wsi_mil.cli"])
def test_importing_the_face_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
