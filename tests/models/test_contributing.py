"""The example that CONTRIBUTING gives of a new aggregator keeps the whole contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from contracts.aggregator import AggregatorContract

from wsi_mil.models.aggregator import Aggregator
from wsi_mil.models.layers import Projection, attention_pooled, segments

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def _example() -> type[Aggregator]:
    """The class that the page defines, run with what a file of the folder imports."""
    block = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    names: dict[str, Any] = {"Aggregator": Aggregator, "Projection": Projection, "__name__": "example"}
    names |= {"attention_pooled": attention_pooled, "segments": segments}
    exec(block, names)  # our own page
    found: type[Aggregator] = names["Loudest"]
    return found


class TestTheExample(AggregatorContract):
    name = _example()  # type: ignore[assignment]
