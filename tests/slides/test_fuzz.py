"""The TIFF path on damaged files: pixels or a SlideError, for every one; in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz.py"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1_000_000])
def test_a_damaged_tiff_gives_pixels_or_an_error(seed: int) -> None:
    """Few seconds here; `make fuzz` goes on for longer."""
    command = [sys.executable, str(SCRIPT), "--seconds", "8", "--seed", str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout.split()[0]) > 20
