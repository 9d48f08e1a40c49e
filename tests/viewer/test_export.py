"""The folder that opens from disk: what is in it, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner
from viewer.conftest import CANARY, Planted

from wsi_mil.cli import app
from wsi_mil.errors import StageError
from wsi_mil.viewer import export_viewer
from wsi_mil.viewer.cases import key_of
from wsi_mil.viewer.export import bundled

pytestmark = pytest.mark.usefixtures("library")


def test_the_command_writes_a_folder_without_a_name_of_a_patient(seen: Planted, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = CliRunner().invoke(app, ["export-viewer", str(seen.work), str(out), "--truth", str(seen.truth)])
    assert ended.exit_code == 0, ended.output
    assert "2 slides" in ended.output
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert CANARY.encode() not in written
    assert str(seen.root).encode() not in written
    assert (out / "static" / "openseadragon.LICENSE.txt").is_file()


def test_no_tile_is_finer_than_asked(seen: Planted, tmp_path: Path) -> None:
    export_viewer(seen.cohort(), tmp_path / "out", only=["L1"], max_px=600)
    text = (tmp_path / "out" / "data" / f"{key_of('L1')}.js").read_text()
    told = json.loads(re.sub(r"^[^{]*", "", text).rstrip(";\n"))
    assert [max(one["size"]) for one in told["slide"]["levels"]] == [250, 500]
    grids = [one["grid"] for one in told["slide"]["levels"]]
    assert len(told["tiles"]) == sum(columns * rows for columns, rows in grids)


def test_pictures_are_webp_and_weigh_what_their_quality_costs(seen: Planted, tmp_path: Path) -> None:
    weights = []
    for quality in (20, 95):
        out = tmp_path / str(quality)
        command = ["export-viewer", str(seen.work), str(out), "--slide", "L1", "--quality", str(quality)]
        assert CliRunner().invoke(app, command).exit_code == 0
        text = (out / "data" / f"{key_of('L1')}.js").read_text()
        told = json.loads(re.sub(r"^[^{]*", "", text).rstrip(";\n"))
        pictures = [base64.b64decode(one) for one in (*told["tiles"].values(), *told["crops"].values())]
        assert {Image.open(io.BytesIO(one)).format for one in pictures} == {"WEBP"}
        weights.append(sum(map(len, pictures)))
    assert weights[0] < weights[1]


def test_a_slide_that_cannot_be_read_is_left_out_and_named(planted: Planted, tmp_path: Path) -> None:
    (planted.root / "slides" / "B1.tiff").write_bytes(b"no slide")
    told = export_viewer(planted.cohort(), tmp_path / "out")
    assert told.slides == 1
    assert list(told.left_out) == ["B1"]
    assert '"B1"' not in (tmp_path / "out" / "data" / "cohort.js").read_text()
    (planted.root / "slides" / "L1.tiff").unlink()
    with pytest.raises(StageError, match="not one slide"):
        export_viewer(planted.cohort(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_there_is_never_overwritten_and_wrong_names_are_said(seen: Planted, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="exists already"):
        export_viewer(seen.cohort(), tmp_path)
    with pytest.raises(StageError, match="L1"):
        export_viewer(seen.cohort(), tmp_path / "out", only=["L2"])


def test_the_bundle_is_one_script() -> None:
    text = bundled()
    assert not re.search(r"^\s*(import|export)\b", text, flags=re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|class|const) (\w+)", text, flags=re.MULTILINE)
    assert len(names) == len(set(names)), "top-level names of all modules differ"
