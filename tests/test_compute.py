"""Executors: the same calls, the same results, wherever they run; a dead worker costs its own calls at most."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from wsi_mil.compute import Executor, Lost, executor, visible_gpus
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


def gpu_of(number: int) -> tuple[int, str]:
    """Which GPU the worker of a call sees, after long enough that one worker cannot take all calls."""
    time.sleep(0.2)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.usefixtures("importable")
def test_each_worker_sees_one_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5f")
    monkeypatch.setattr(gpu_of, "__module__", "test_compute")
    told = dict(executor("gpus").run(gpu_of, [(number,) for number in range(8)]))
    assert len(told) == 8
    seen = {worker: {gpu for pid, gpu in told.values() if pid == worker} for worker, _ in told.values()}
    assert sorted(map(sorted, seen.values())) == [["3"], ["GPU-5f"]]
    assert {gpu for _, gpu in dict(executor("gpus:1").run(gpu_of, [(0,)])).values()} == {"3"}


@pytest.mark.parametrize(("visible", "where"), [("", "gpus"), ("-1", "gpus"), ("0", "gpus:2")])
def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch, visible: str, where: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ConfigError, match=r"GPU\(s\) are visible here"):
        executor(where)


def test_gpus_are_counted_by_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU 0: A (UUID: GPU-a)\\nGPU 1: A (UUID: GPU-b)\\n  MIG 1g: x\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert visible_gpus() == []


@pytest.mark.parametrize("where", ["there", "gpus:0", "gpus:x", "here:2", "processes", "processes:0", "dask"])
def test_unknown_places(where: str) -> None:
    with pytest.raises(ConfigError, match="write here, processes:N"):
        executor(where)
