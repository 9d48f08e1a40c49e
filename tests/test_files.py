"""A file is whole, or it is not there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from wsi_mil import files


def test_a_failed_draft_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with files.drafted(path) as draft:
            draft.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("first", "second"):
        with files.drafted(path) as draft:
            draft.mkdir()
            (draft / f"{content}.txt").write_text(content)
    assert [one.name for one in path.iterdir()] == ["second.txt"]
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_json_and_text_round_trip(tmp_path: Path) -> None:
    files.write_json(tmp_path / "deep" / "a.json", {"µ": [1, None]})
    assert files.read_json(tmp_path / "deep" / "a.json") == {"µ": [1, None]}


def test_old_drafts_are_swept_and_young_ones_kept(tmp_path: Path) -> None:
    old, young = tmp_path / f".a.host.1.x{files.DRAFT_SUFFIX}", tmp_path / f".b.host.1.x{files.DRAFT_SUFFIX}"
    old.write_text("")
    young.write_text("")
    past = time.time() - 2 * files.STALE_DRAFT_S
    os.utime(old, (past, past))
    assert files.sweep(tmp_path) == 1
    assert young.exists()
    assert not old.exists()


def test_digests_tell_lists_of_parts_apart() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc")
    assert files.digest("ab") == files.digest(b"ab")
    assert files.digest_json({"a": 1, "b": 2}) == files.digest_json({"b": 2, "a": 1})


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.digest_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
