"""Where weights come from: a hub that gives, refuses, is gone or changes; folders of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install 'wsi_mil[timm]'")

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from wsi_mil.encoders import records, source
from wsi_mil.encoders.source import Wanted
from wsi_mil.errors import EncoderError

COMMIT = "a" * 40
UNI = Wanted("uni", "MahmoodLab/UNI", "pytorch_model.bin", "7" * 40, "yes")
OPEN = Wanted("kaiko-s8", "1aurent/kaiko")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


Hub = Callable[..., list[tuple[str, str, Any]]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that holds some files, or raises; returns the list of what it is asked for."""

    def stand_in(files: tuple[str, ...] = (), raises: Exception | None = None, licence: str = "mit") -> list[Any]:
        asked: list[Any] = []

        def download(repository: str, file: str, *, revision: str | None) -> str:
            asked.append((repository, file, revision))
            if raises is not None:
                raise raises
            if file not in files:
                raise EntryNotFoundError("no such entry")
            path = tmp_path / "hub" / "snapshots" / (revision or COMMIT) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"weights")
            return str(path)

        card = SimpleNamespace(card_data=SimpleNamespace(license=licence))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(huggingface_hub, "model_info", lambda repository, revision: card)
        return asked

    return stand_in


def test_the_pinned_commit_is_asked_for(hub: Hub) -> None:
    asked = hub(("pytorch_model.bin",))
    found = source.find(UNI, "")
    assert asked == [("MahmoodLab/UNI", "pytorch_model.bin", "7" * 40)]
    assert (found.source, found.revision, found.licence) == ("hub MahmoodLab/UNI", "7" * 40, "mit")


def test_without_a_pin_the_newest_is_taken_once_and_kept(hub: Hub) -> None:
    asked = hub(("pytorch_model.bin",))
    found = source.find(OPEN, "")
    assert [(file, revision) for _, file, revision in asked] == [
        ("model.safetensors", None),
        ("pytorch_model.bin", None),
    ], "safetensors are preferred"
    assert found.revision == COMMIT
    records.check_record("kaiko-s8", weights_digest="d", revision=COMMIT, licence="", source="")
    source.find(OPEN, "")
    assert asked[-1][2] == COMMIT


def _response(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None)


class ConnectError(Exception):
    """Named as the hub's client names its own."""


@pytest.mark.parametrize(
    "error",
    [
        GatedRepoError("gated", response=_response(403)),
        HfHubHTTPError("unauthorised", response=_response(401)),
    ],
)
def test_a_gate_says_what_to_do(hub: Hub, folder: Path, error: Exception) -> None:
    hub(raises=error)
    with pytest.raises(EncoderError) as told:
        source.find(UNI, "")
    text = str(told.value)
    for step in (
        "https://huggingface.co/MahmoodLab/UNI and accept the terms", "https://huggingface.co/settings/tokens",
        "`hf auth login`", "HF_TOKEN", f"copy pytorch_model.bin to {folder / 'uni'}", "extract.weights=FILE",
    ):  # fmt: skip
        assert step in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError("404", response=_response(404)), "shows no MahmoodLab/UNI"),
        (LocalEntryNotFoundError("offline mode is on"), r"could not be reached \(offline mode is on\)"),
        (ConnectError("no route"), r"could not be reached \(no route\)"),
        (HfHubHTTPError("bad gateway", response=_response(502)), r"could not be reached \(bad gateway\)"),
    ],
)
def test_other_faults_of_the_hub_are_told(hub: Hub, error: Exception, words: str) -> None:
    hub(raises=error)
    with pytest.raises(EncoderError, match=words + ".*extract.weights=FILE"):
        source.find(UNI, "")


def test_an_error_nobody_thought_of_is_not_hidden(hub: Hub) -> None:
    hub(raises=RuntimeError("a fault of the client"))
    with pytest.raises(RuntimeError, match="a fault of the client"):
        source.find(UNI, "")


def test_a_repository_without_the_file_is_told(hub: Hub) -> None:
    hub(("README.md",))
    with pytest.raises(EncoderError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        source.find(OPEN, "")


@pytest.mark.parametrize("place", ["uni.safetensors", "uni.pth", "uni/pytorch_model.bin", "uni/whatever.pt"])
def test_the_weights_folder_comes_before_the_hub(hub: Hub, folder: Path, place: str) -> None:
    asked = hub()
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_bytes(b"weights")
    assert source.find(UNI, "").path == folder / place
    assert source.installed(UNI) == folder / place
    assert asked == []


def test_a_file_or_a_folder_that_is_given_wins(hub: Hub, tmp_path: Path) -> None:
    asked = hub()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pytorch_model.bin").write_bytes(b"weights")
    for given in ("mine", "mine/pytorch_model.bin"):
        assert source.find(UNI, str(tmp_path / given)).path.name == "pytorch_model.bin"
    with pytest.raises(EncoderError, match="no file of weights at"):
        source.find(UNI, str(tmp_path / "none.pt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match=r"'.*empty' holds no file of weights \(pytorch_model.bin\)"):
        source.find(UNI, str(tmp_path / "empty"))
    assert asked == []


def test_an_encoder_on_no_hub_says_where_to_put_the_file(folder: Path) -> None:
    with pytest.raises(EncoderError, match=f"on no hub.*{folder / 'ctranspath'}.pth"):
        source.find(Wanted("ctranspath"), "")


def test_the_hubs_own_cache_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache",
        lambda repository, file, revision: str(tmp_path / file) if file == "model.safetensors" else None,
    )  # fmt: skip
    assert source.cached(OPEN) == tmp_path / "model.safetensors"
    assert source.cached(UNI) is None
    assert source.cached(Wanted("ctranspath")) is None
