"""The viewer on a slide of 100,000 x 100,000 px: first view, tiles for four viewers at once, memory; beside DeepZoom.

    python benchmarks/viewer.py [SLIDE.svs] [--side 100000] [--work FOLDER]

The slide is a mosaic of the stored JPEG tiles of SLIDE (else of a synthetic one), levels of 1, 4, 16 and 64, written to
a temporary folder and removed. `wsi-mil view` runs as a process of its own; each viewer asks over HTTP with six
connections, as browsers do, for views of 1,600 x 1,000 px at random places of random levels. The peer is
openslide-python's DeepZoomGenerator with JPEG of the same quality, on one thread in this process beside our tiles on
one thread, for the same places: with its usual tiles (254 px and 1 px of overlap) and with those of the file, its best
case. Rates are in megapixels a second, since tiles differ in size.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
from openslide.deepzoom import DeepZoomGenerator

from wsi_mil.synthetic import draw_cohort
from wsi_mil.synthetic.mosaic import write_mosaic
from wsi_mil.viewer import read_cases
from wsi_mil.viewer.handles import Handles
from wsi_mil.viewer.pyramid import JPEG_QUALITY

VIEW_PX = 1600, 1000
CONNECTIONS, VIEWERS, VIEWS = 6, 4, 25
PAUSE_S = 0.5
"""How long a person looks before moving on; the goal is for such viewers, and without a pause stands beside it."""

GOALS = {"first view": 1.0, "p95": 0.05, "memory": 1.0, "ratio": 3.0}

Place = tuple[int, int, int]


def main() -> None:
    """Print what was measured beside its goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--work", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=told.work) as name:
        folder = Path(name)
        source = told.source
        if source is None:
            draw_cohort(folder / "drawn", slides=2, seed=0)
            source = folder / "drawn" / "slides" / "S01.tiff"
        path = folder / "m.svs"
        write_mosaic(path, source, side_px=told.side, levels=4)
        (folder / "cohort.csv").write_text(f"slide,path,patient,site,mpp,label\nm,{path},p,,,\n")
        print(f"{told.side:,} x {told.side:,} px, {path.stat().st_size / 1e9:.2f} GB, load {os.getloadavg()[0]:.1f}")
        over_http(folder)
        beside(folder, path)


def over_http(folder: Path) -> None:
    """First view, then four viewers at once."""
    token = secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "wsi_mil", "view", str(folder), "--port", "0"]
    environment = {**os.environ, "WSI_MIL_TOKEN": token}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        found = None
        while found is None:
            found = re.match(r"open\s+http://127.0.0.1:(\d+)/", server.stdout.readline())
        port = int(found[1])
        headers = {"cookie": f"wsi_mil_{port}={token}"}
        start = time.perf_counter()
        get(port, headers, "/")
        key = json.loads(get(port, headers, "/api/cases"))["cases"][0]["key"]
        slide = json.loads(get(port, headers, f"/api/slide/{key}"))
        levels = slide["levels"]
        fit = next(number for number, one in enumerate(levels) if max(one["size"]) >= min(VIEW_PX))
        columns, rows = levels[fit]["grid"]
        fetch(port, headers, key, [(fit, column, row) for column in range(columns) for row in range(rows)], [])
        first = time.perf_counter() - start
        said("first view of the slide, s", first, GOALS["first view"], low=True, note=f"{columns * rows} tiles")
        for pause, goal in ((PAUSE_S, GOALS["p95"]), (0.0, None)):
            seconds: list[float] = []
            start = time.perf_counter()
            walks = [walk(levels, seed + int(not pause) * VIEWERS) for seed in range(VIEWERS)]
            told = [(port, headers, key, one, seconds, pause) for one in walks]
            threads = [threading.Thread(target=follow, args=one) for one in told]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rate = len(seconds) / (time.perf_counter() - start)
            what = f"p95 of a tile, {VIEWERS} viewers, pause {pause:g} s, s"
            note = f"{len(seconds)} tiles, median {np.median(seconds) * 1000:.1f} ms, {rate:,.0f} tiles/s"
            said(what, float(np.percentile(seconds, 95)), goal, note=note)
        status = Path(f"/proc/{server.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20
        said("memory of the server at its peak, GiB", peak, GOALS["memory"], low=True)
        server.terminate()


def beside(folder: Path, path: Path) -> None:
    """Ours and DeepZoomGenerator, one thread each, the same rectangles."""
    case = next(iter(read_cases(folder).cases.values()))
    handles = Handles()
    levels = handles.get(case).levels
    count = len(levels)
    rng = np.random.default_rng(9)
    for shown in ("level 1 (stored)", "level 1/2", "level 1/4 (stored)", "level 1/8", "level 1/16 (stored)"):
        number = ("1 (", "1/2", "1/4", "1/8", "1/16").index(re.search(r"1(/\d+| \()", shown)[0])
        level = levels[number]
        places = [tuple(rng.integers(0, side) for side in (level.grid[0] - 1, level.grid[1] - 1)) for _ in range(150)]
        start = time.perf_counter()
        for column, row in places:
            handles.tile(case, count - 1 - number, int(column), int(row))
        mine = 150 * level.tile[0] * level.tile[1] / (time.perf_counter() - start) / 1e6
        rates = [peer(path, number, level, places, size, overlap) for size, overlap in ((254, 1), (level.tile[0], 0))]
        said(f"{shown}: Mpx/s", mine, None, note=f"DeepZoomGenerator {rates[0]:.1f}, at its best {rates[1]:.1f}")
        said("  ratio to the better", mine / max(rates), GOALS["ratio"], low=False)


def peer(path: Path, number: int, level: object, places: list, size: int, overlap: int) -> float:
    """Megapixels a second of DeepZoomGenerator at a level of the same downsample."""
    slide = openslide.OpenSlide(path)
    zoom = DeepZoomGenerator(slide, tile_size=size, overlap=overlap, limit_bounds=False)
    at = zoom.level_count - 1 - number
    start = time.perf_counter()
    for column, row in places:
        address = int(column) * level.tile[0] // size, int(row) * level.tile[1] // size
        zoom.get_tile(at, address).save(io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
    rate = len(places) * size * size / (time.perf_counter() - start) / 1e6
    slide.close()
    return rate


def walk(levels: list[dict], seed: int) -> list[list[Place]]:
    """Views of one viewer: the tiles under a window at random places of random levels."""
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(VIEWS):
        number = int(rng.integers(len(levels) // 2, len(levels)))
        level = levels[number]
        across, down = (-(-px // side) + 1 for px, side in zip(VIEW_PX, level["tile"], strict=True))
        left, top = (
            int(rng.integers(0, max(1, have - want))) for have, want in zip(level["grid"], (across, down), strict=True)
        )
        views.append([(number, left + x, top + y) for y in range(down) for x in range(across)])
    return views


def follow(port: int, headers: dict, key: str, views: list[list[Place]], seconds: list[float], pause: float) -> None:
    """One viewer: a view after the other."""
    for view in views:
        fetch(port, headers, key, view, seconds)
        time.sleep(pause)


def fetch(port: int, headers: dict, key: str, places: list[Place], seconds: list[float]) -> None:
    """The tiles of a view over six connections."""

    def run(part: list[Place]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for level, column, row in part:
            start = time.perf_counter()
            connection.request("GET", f"/tile/{key}/{level}/{column}_{row}.jpg", headers=headers)
            answer = connection.getresponse()
            answer.read()
            seconds.append(time.perf_counter() - start)
            if answer.status != 200:
                raise SystemExit(f"tile {level}/{column}_{row}: {answer.status}")
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(run, [places[number::CONNECTIONS] for number in range(CONNECTIONS)]))


def get(port: int, headers: dict, path: str) -> bytes:
    """One reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers=headers)
    return connection.getresponse().read()


def said(what: str, value: float, goal: float | None, *, low: bool = True, note: str = "") -> None:
    """A line with the goal, and whether it is reached."""
    told = "" if goal is None else f"  goal {'<' if low else '>='} {goal:g}: {'yes' if (value < goal) == low else 'NO'}"
    print(f"{what:46} {value:9.3f}{told}  {note}")


if __name__ == "__main__":
    main()
