"""Damaged TIFFs, one after the other: each must give pixels or a SlideError; never a crash, a hang or much memory.

Run by a test for a few seconds, and by `make fuzz SECONDS=600` for as long as is wanted. A failure names the seed that
makes it again: `--seed N --cases 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import tifffile
from contracts.slide import textured
from slides.scanners import write_bif, write_ndpi, write_philips, write_scn

from wsi_mil.errors import SlideError
from wsi_mil.slides import open_slide

MAX_SECONDS = 20
"""One file's worth of opening and reading; more is a hang."""

MAX_BYTES = 2 << 30

HUGE = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)

Random = np.random.Generator
Mutation = Callable[[bytearray, Random], bytearray]


def good_files(folder: Path) -> list[Path]:
    """One small file of each kind that the reader knows."""
    rgb = textured(320, 256)
    files = [
        write_ndpi(folder / "a.ndpi", rgb),
        write_scn(folder / "a.scn", rgb, at_um=(20, 30)),
        write_philips(folder / "a.phi", rgb),
        write_bif(folder / "a.bif", rgb),
    ]
    for name, options in (
        ("jpeg", {"compression": "jpeg"}),
        ("jpeg2000", {"compression": "jpeg2000"}),
        ("lzw", {"compression": "lzw", "predictor": True}),
        ("deflate", {"compression": "deflate"}),
        ("webp", {"compression": "webp"}),
        ("raw", {}),
    ):
        with tifffile.TiffWriter(folder / f"{name}.tiff", bigtiff=name == "lzw", ome=name == "deflate") as tiff:
            tile: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", **options}
            tiff.write(rgb, metadata={"axes": "YXS"} if name == "deflate" else None, **tile)
            if name != "deflate":
                tiff.write(rgb[::2, ::2], subfiletype=1, metadata=None, **tile)
        files.append(folder / f"{name}.tiff")
    return files


def cut(data: bytearray, random: Random) -> bytearray:
    """Cut off at one of the tenths."""
    return data[: len(data) * int(random.integers(0, 10)) // 10]


def flip(data: bytearray, random: Random) -> bytearray:
    """A few random bytes anywhere."""
    for at in random.integers(0, len(data), int(random.integers(1, 30))):
        data[at] = int(random.integers(0, 256))
    return data


def flip_directory(data: bytearray, random: Random) -> bytearray:
    """Random bytes near a directory: tags, types, counts, values, the link to the next one."""
    for at in random.integers(0, 400, int(random.integers(1, 8))):
        place = _directory(data) + int(at)
        if place < len(data):
            data[place] = int(random.integers(0, 256))
    return data


def claim(data: bytearray, random: Random) -> bytearray:
    """One value of the first directory becomes huge, or nothing."""
    start, big = _directory(data), data[2:3] == b"+"
    size, head = (20, 8) if big else (12, 2)
    count = min(int.from_bytes(data[start : start + head], "little"), 60)
    if not count:
        return data
    at = start + head + size * int(random.integers(0, count)) + (12 if big else 8)
    value = struct.pack("<I", HUGE[int(random.integers(0, len(HUGE)))])
    if at + 4 <= len(data):
        data[at : at + 4] = value
    return data


def circle(data: bytearray, random: Random) -> bytearray:
    """The first directory names itself as the next one."""
    start, big = _directory(data), data[2:3] == b"+"
    size, head = (20, 8) if big else (12, 2)
    count = int.from_bytes(data[start : start + head], "little")
    at = start + head + size * count
    if at + 8 <= len(data):
        data[at : at + 4] = struct.pack("<I", start)
    return data


def _directory(data: bytearray) -> int:
    where = (8, 16) if data[2:3] == b"+" else (4, 8)
    return min(int.from_bytes(data[where[0] : where[1]], "little"), len(data))


MUTATIONS: tuple[Mutation, ...] = (cut, flip, flip, flip_directory, flip_directory, claim, claim, circle)


def try_one(path: Path, random: Random) -> str:
    """Open a file and read it here and there; "pixels" or "refused" is fine, anything else is raised."""
    try:
        slide = open_slide(path, reader="tiff")
    except SlideError:
        return "refused"
    with slide:
        for number, level in enumerate(slide.levels[:4]):
            for _ in range(3):
                left = int(random.integers(0, max(1, level.width)))
                top = int(random.integers(0, max(1, level.height)))
                try:
                    pixels = slide.read_level((left, top, 100, 90), level=number)
                except SlideError:
                    continue
                assert pixels.shape == (90, 100, 3)
                assert pixels.dtype == np.uint8
        with contextlib.suppress(SlideError):
            slide.ref()
    return "pixels"


def main() -> int:
    """Run for some seconds or cases; 1 and the seed where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cases", type=int, default=1 << 40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _hung)
    ended, counts = time.monotonic() + arguments.seconds, {"pixels": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as name:
        files = good_files(Path(name))
        for file in files:
            assert try_one(file, np.random.default_rng(0)) == "pixels", f"{file.name} is not good to begin with"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        case = arguments.seed
        while time.monotonic() < ended and case < arguments.seed + arguments.cases:
            random = np.random.default_rng(case)
            data = bytearray(files[int(random.integers(0, len(files)))].read_bytes())
            for _ in range(int(random.integers(1, 3))):
                data = MUTATIONS[int(random.integers(0, len(MUTATIONS)))](data, random) or bytearray(b"II")
            path = Path(name) / "case.tiff"
            path.write_bytes(data)
            signal.alarm(MAX_SECONDS)
            try:
                counts[try_one(path, random)] += 1
            except BaseException as error:
                sys.stderr.write(f"seed {case}: {type(error).__name__}: {error}\n")
                raise
            signal.alarm(0)
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            if used - before > MAX_BYTES:
                sys.stderr.write(f"seed {case}: {used >> 20} MiB\n")
                return 1
            case += 1
    sys.stdout.write(f"{case - arguments.seed} cases, {counts}\n")
    return 0


def _hung(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {MAX_SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
