"""The table of methods in the docs says of each what its class says."""

from __future__ import annotations

from pathlib import Path

from wsi_mil.models import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def row(name: str) -> str:
    """One line of the table."""
    method = MODELS[name]
    recipe = ", ".join(f"{key} {value:g}" for key, value in method.recipe.items()) or "as the study"
    spatial, exact = (_told(vars(method).get(key)) for key in ("spatial", "exact_contributions"))
    return f"| `{name}` | {method.use} | {spatial} | {exact} | {method.cost} | {recipe} | {method.paper} |"


def _told(value: object) -> str:
    return "yes" if value is True else "no" if value is False else "by option"


def test_the_table_in_the_docs_is_what_the_classes_say() -> None:
    page = PAGE.read_text(encoding="utf-8").splitlines()
    lacking = [row(name) for name in sorted(MODELS) if row(name) not in page]
    assert not lacking, "put into docs/models.md:\n" + "\n".join(lacking)
    told = {line.split("`")[1] for line in page if line.startswith("| `") and line.count("|") == 8}
    assert told == set(MODELS)
