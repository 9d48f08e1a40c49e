"""Commands about encoders, as a person meets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wsi_mil.cli import app
from wsi_mil.encoders import CATALOGUE, build_encoder, embed, save_golden
from wsi_mil.errors import ConfigError, EncoderError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path / "weights"


def test_every_encoder_is_listed(folder: Path) -> None:
    (folder / "uni").mkdir(parents=True)
    (folder / "uni" / "pytorch_model.bin").write_bytes(b"weights")
    ended = CliRunner().invoke(app, ["encoders"])
    assert ended.exit_code == 0
    lines = {line.split()[0]: line.split() for line in ended.output.splitlines() if line.split()}
    assert set(CATALOGUE) | {"offline"} <= set(lines)
    assert lines["uni"][-1] == "yes", "its weights are found"
    assert lines["uni2-h"][-1] == "no"
    assert "gated" in lines["uni"]
    assert lines["phikon"][-2] == "yes", "it saw TCGA"
    assert lines["hibou-b"].count("?") == 4


def test_the_offline_encoder_is_checked_against_what_is_built_in() -> None:
    ended = CliRunner().invoke(app, ["encoders", "check", "offline"])
    assert ended.exit_code == 0, ended.output
    assert "weights_digest" in ended.output
    assert "golden embedding: the same" in ended.output


def test_a_golden_embedding_is_kept_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    check = ["encoders", "check", "timm:test_vit", "--weights", "random"]
    ended = CliRunner().invoke(app, check)
    assert "no golden embedding of timm:test_vit is known" in ended.output
    path = tmp_path / "golden.npz"
    assert CliRunner().invoke(app, [*check, "--save-golden", str(path)]).exit_code == 0
    ended = CliRunner().invoke(app, [*check, "--golden", str(path)])
    assert (ended.exit_code, "golden embedding: the same" in ended.output) == (0, True)
    ended = CliRunner().invoke(app, [*check, "--golden", str(path), "--pooling", "mean"])
    assert ended.exit_code == 1
    assert "contract differs in pooling" in ended.output
    assert "not the same" in ended.output


def test_vectors_that_changed_end_with_one(tmp_path: Path) -> None:
    golden = embed(build_encoder("offline", tile_px=64, tile_mpp=0.5))
    golden.features[:] = np.random.default_rng(0).normal(size=golden.features.shape)
    save_golden(golden, tmp_path / "golden.npz")
    ended = CliRunner().invoke(app, ["encoders", "check", "offline", "--golden", str(tmp_path / "golden.npz")])
    assert ended.exit_code == 1


def test_an_unknown_name_gets_a_hint() -> None:
    ended = CliRunner().invoke(app, ["encoders", "check", "virchow3"])
    assert isinstance(ended.exception, EncoderError)
    assert "did you mean 'virchow" in str(ended.exception)


@pytest.mark.parametrize("arguments", [["chek", "uni"], ["check"]])
def test_other_words_are_refused(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, ["encoders", *arguments])
    assert isinstance(ended.exception, ConfigError)
    assert "wsi-mil encoders check NAME" in str(ended.exception)


def test_bags_go_out_and_come_in(tmp_path: Path) -> None:
    from contracts.store import some_bag

    from wsi_mil.bags import bag_to_hdf5

    path = tmp_path / "ours" / "A1.h5"
    path.parent.mkdir()
    path.write_bytes(bag_to_hdf5(some_bag()))
    run = CliRunner().invoke
    ended = run(app, ["bags", "export", str(path), "-o", str(tmp_path / "out"), "--as", "stamp"])
    assert (ended.exit_code, "1 well, 0 failed" in ended.output) == (0, True), ended.output
    arguments = ["bags", "import", str(tmp_path / "out"), "-o", str(tmp_path / "in")]
    ended = run(app, arguments)
    assert ended.exit_code == 1, "micrometres need a scale"
    assert "0 well, 1 failed" in ended.output
    ended = run(app, [*arguments, "--mpp", "0.5"])
    assert (ended.exit_code, "stamp, some" in ended.output) == (0, True), ended.output
    assert "1 well" in run(app, ["bags", "verify", str(tmp_path / "in")]).output


def test_one_vector_a_slide(tmp_path: Path) -> None:
    import pandas as pd
    from contracts.store import some_bag, some_contract

    from wsi_mil.bags import Bag, bag_to_hdf5

    for name in ("A1", "B2"):
        bag = some_bag(name)
        features = np.zeros((len(bag), 1024), np.float16)
        bag = Bag(bag.slide, features, bag.grid, some_contract(1024, "uni"), bag.status)
        (tmp_path / f"{name}.h5").write_bytes(bag_to_hdf5(bag))
    (tmp_path / "C3.h5").write_bytes(bag_to_hdf5(some_bag("C3")))
    arguments = ["bags", "embed", str(tmp_path), "-o", str(tmp_path / "slides.csv"), "--with", "feather-uni"]
    ended = CliRunner().invoke(app, [*arguments, "--weights", "random"])
    assert ended.exit_code == 1
    assert "2 well, 1 failed" in ended.output
    table = pd.read_csv(tmp_path / "slides.csv")
    assert list(table["slide"]) == ["A1", "B2"]
    assert table.shape == (2, 513)
