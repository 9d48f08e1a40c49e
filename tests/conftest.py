"""Shared by all tests: few threads, and the folder of real data where there is one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Several test processes share the cores; set before any library starts its threads.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# No test may read or write what this machine remembers of encoders.
os.environ["WSI_MIL_WEIGHTS"] = os.path.join(tempfile.gettempdir(), f"wsi_mil-tests-{os.getpid()}", "weights")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real slides and benchmarks; the test is skipped where it is not set."""
    told = os.environ.get("WSI_MIL_TEST_DATA")
    if not told:
        pytest.skip("WSI_MIL_TEST_DATA is not set: the real slides are not at hand")
    path = Path(told).absolute()
    if not path.is_dir():
        pytest.skip(f"WSI_MIL_TEST_DATA names {path}, which is no folder")
    return path


settings.register_profile("wsi_mil", deadline=None)  # tests never judge by the clock
settings.load_profile("wsi_mil")
