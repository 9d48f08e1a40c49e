"""Where bytes come from: a file, a web server, an object in memory; the same slide from each."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_mil.errors import SlideError
from wsi_mil.slides import open_slide
from wsi_mil.slides.source import BLOCK_BYTES, LocalSource, MappedSource, RemoteSource, Source, as_file

Write = Callable[..., Path]


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """A web server that answers ranges, as object stores do."""

    asked: list[str]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range", "")
        type(self).asked.append(wanted)
        start, end = (int(part) for part in wanted.removeprefix("bytes=").split("-")) if wanted else (0, len(data) - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}")
        self.send_header("Content-Length", str(min(end + 1, len(data)) - start))
        self.end_headers()
        self.wfile.write(data[start : end + 1])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    RangeHandler.asked = []
    handler = functools.partial(RangeHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", RangeHandler.asked
        running.shutdown()
        thread.join()


LOCAL: list[Callable[[Path], Source]] = [LocalSource, MappedSource]


@pytest.mark.parametrize("kind", LOCAL)
def test_a_local_file_is_read_by_place(tmp_path: Path, kind: Callable[[Path], Source]) -> None:
    (tmp_path / "a").write_bytes(bytes(range(200)))
    source = kind(tmp_path / "a")
    source.expect(10, 400)
    source.expect(300, 5)
    assert pickle.loads(pickle.dumps(source)).read(3, 2) == bytes([3, 4])
    assert source.read(300, 5) == b""
    assert source.size == 200
    assert source.read(10, 3) == bytes([10, 11, 12])
    assert source.read(198, 10) == bytes([198, 199])
    file = as_file(source)
    file.seek(-5, 2)
    assert file.read() == bytes([195, 196, 197, 198, 199])
    source.close()
    with pytest.raises(SlideError, match="was closed"):
        source.read(0, 1)


def test_an_empty_file_is_mapped_too(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert MappedSource(tmp_path / "a").read(0, 5) == b""


def test_a_mapped_file_that_is_cut_short_is_an_error_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100_000))
    source = MappedSource(tmp_path / "a")
    os.truncate(tmp_path / "a", 10)
    with pytest.raises(SlideError, match="cut short"):
        source.read(90_000, 10)


def test_a_mapped_slide_reads_the_same(write_slide: Write) -> None:
    path = write_slide(compression="jpeg", downsamples=(1, 2))
    with open_slide(path, memory_map=True) as mapped, open_slide(path) as plain:
        assert isinstance(vars(mapped)["_source"], MappedSource)
        assert mapped.fingerprint == plain.fingerprint
        for level, box in ((0, (100, 100, 500, 400)), (1, (10, 20, 200, 150))):
            np.testing.assert_array_equal(mapped.read_level(box, level=level), plain.read_level(box, level=level))
        with pickle.loads(pickle.dumps(mapped)) as there:
            assert isinstance(vars(there)["_source"], MappedSource)


def test_a_slide_in_memory_reads_the_same(write_slide: Write) -> None:
    fsspec = pytest.importorskip("fsspec")
    path = write_slide(compression="lzw", downsamples=(1, 2))
    memory = fsspec.filesystem("memory")
    memory.pipe("/slide.tiff", path.read_bytes())
    with open_slide("memory://slide.tiff") as there, open_slide(path) as here:
        assert there.id == "slide"
        assert there.levels == here.levels
        assert there.fingerprint == here.fingerprint
        np.testing.assert_array_equal(
            there.read_level((100, 100, 500, 400), level=0), here.read_level((100, 100, 500, 400), level=0)
        )


def test_ranges_of_a_web_server_are_asked_for_and_not_the_whole(
    write_slide: Write, server: tuple[str, list[str]]
) -> None:
    pytest.importorskip("aiohttp")
    rgb = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    path = write_slide(rgb=rgb, compression=None, downsamples=(1,))
    assert path.stat().st_size > 4 * BLOCK_BYTES
    url, asked = server
    with open_slide(f"{url}/{path.name}") as slide:
        np.testing.assert_array_equal(slide.read_level((1400, 1410, 100, 90), level=0), rgb[1410:, 1400:])
    ranges = [text for text in asked if text.startswith("bytes=") and text != "bytes=0-"]
    assert 0 < len(ranges) <= 3


def test_a_url_that_leads_nowhere_says_so(server: tuple[str, list[str]]) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(SlideError, match="cannot be reached"):
        open_slide(f"{server[0]}/gone.tiff")


def test_a_protocol_that_is_none_says_what_to_install() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SlideError, match="nosuch"):
        RemoteSource("nosuch://bucket/a.tiff")
