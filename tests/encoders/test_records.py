"""What a machine remembers of the weights it has loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsi_mil.encoders import records
from wsi_mil.encoders.records import check_record, read_record, record_path, weights_folder
from wsi_mil.errors import EncoderError

FACTS = {"weights_digest": "d" * 64, "revision": "c" * 40, "licence": "MIT", "source": "hub a/b"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_the_first_load_is_recorded(folder: Path) -> None:
    assert read_record("uni") == {}
    check_record("uni", **FACTS)
    assert record_path("uni") == folder / "records" / "uni.json"
    assert json.loads(record_path("uni").read_text()) == FACTS
    assert check_record("uni", **FACTS) == FACTS


@pytest.mark.parametrize("key", ["weights_digest", "revision", "licence"])
def test_a_change_is_refused_with_the_difference(key: str) -> None:
    check_record("uni", **FACTS)
    with pytest.raises(EncoderError, match=rf"'uni'.*{key}: '.*' -> 'other'.*remove .*uni\.json"):
        check_record("uni", **{**FACTS, key: "other"})
    assert read_record("uni") == FACTS


def test_the_same_weights_from_a_file_are_the_same() -> None:
    check_record("uni", **FACTS)
    told = check_record("uni", **{**FACTS, "revision": "", "licence": "", "source": "file uni.bin"})
    assert told == FACTS


def test_what_becomes_known_is_added() -> None:
    check_record("uni", **{**FACTS, "revision": "", "licence": ""})
    check_record("uni", **FACTS)
    assert read_record("uni") == FACTS


def test_names_with_signs_are_one_file() -> None:
    check_record("timm:resnet18", **FACTS)
    assert record_path("timm:resnet18").name == "timm-resnet18.json"


def test_a_broken_record_says_where_it_is() -> None:
    record_path("uni").parent.mkdir(parents=True)
    record_path("uni").write_text("{")
    with pytest.raises(EncoderError, match=r"uni\.json is not JSON"):
        read_record("uni")


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(EncoderError, match="set WSI_MIL_WEIGHTS"):
        check_record("uni", **FACTS)


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(records.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "wsi_mil" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache" / "wsi_mil" / "weights"
