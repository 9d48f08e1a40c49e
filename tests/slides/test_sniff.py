"""Ids and the first bytes of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mil.layout import slide_id
from wsi_mil.slides.sniff import finding, head_of


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("A1.svs", "A1"),
        ("A1.ome.tif", "A1"),
        ("A1.OME.TIFF", "A1"),
        ("TCGA-CR-7395.uuid.svs", "TCGA-CR-7395.uuid"),
        ("no_suffix", "no_suffix"),
        ("😐.svs", "😐"),
    ],
)
def test_an_id_is_the_name_without_its_suffix(name: str, want: str) -> None:
    assert slide_id(Path("folder.d") / name) == want


@settings(deadline=None, max_examples=200)
@given(
    magic=st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]), rest=st.binary(max_size=200)
)
def test_no_bytes_make_it_fall_over(tmp_path_factory: pytest.TempPathFactory, magic: bytes, rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.tiff"
    path.write_bytes(magic + rest)
    head_of(path)
    finding(path)


def test_a_description_past_the_end_of_the_world_is_none(tmp_path: Path) -> None:
    path = tmp_path / "far.tiff"
    entry = (270).to_bytes(2, "little") + (2).to_bytes(2, "little") + (1 << 40).to_bytes(8, "little") + b"\xff" * 8
    path.write_bytes(b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little") + (1).to_bytes(8, "little") + entry)
    head = head_of(path)
    assert head is not None
    assert head.description == ""
