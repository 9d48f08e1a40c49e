"""Executors: the same calls, the same results, wherever they run; a dead worker costs its own calls at most."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from wsi_mil.compute import Executor, Lost, executor
from wsi_mil.errors import ConfigError


def square(number: int) -> int:
    """For workers, which import this file by its name."""
    return number * number


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fresh worker processes find this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setitem(sys.modules, "test_compute", sys.modules[__name__])
    for function in (square, die_on_three):
        monkeypatch.setattr(function, "__module__", "test_compute")


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("where", ["here", "processes:2"])
def test_every_call_is_answered(where: str) -> None:
    runner: Executor = executor(where)
    assert dict(runner.run(square, [(number,) for number in range(7)])) == {n: n * n for n in range(7)}


@pytest.mark.usefixtures("importable")
def test_a_call_that_kills_its_process_is_lost_alone() -> None:
    results = dict(executor("processes:2").run(die_on_three, [(number,) for number in range(6)]))
    assert isinstance(results.pop(3), Lost)
    assert results == {n: n for n in (0, 1, 2, 4, 5)}


@pytest.mark.parametrize("where", ["there", "here:2", "processes", "processes:0", "processes:x", "dask"])
def test_unknown_places(where: str) -> None:
    with pytest.raises(ConfigError, match="write here, processes:N"):
        executor(where)
