"""The command line as a person meets it: help at once, one sentence an error, exit codes that a script can trust."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_mil.cli import app
from wsi_mil.models import MODELS
from wsi_mil.stages import STAGES
from wsi_mil.synthetic import draw_cohort


def _cli(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsi_mil", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    ended.stdout, ended.stderr = (re.sub(r"\s+", " ", text) for text in (ended.stdout, ended.stderr))
    return ended


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    draw_cohort(folder / "cohort", slides=12, seed=2, side_px=(800, 900))
    path = folder / "study.yaml"
    told = "cohort: {table: cohort/cohort.csv, slides: cohort/slides}\ntask: {label: label}\nsplit: {folds: 4}\n"
    path.write_text(told)  # four patients of each class
    return path


def test_help_names_every_stage_in_order() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    places = [text.index(f" {name} ") for name in STAGES]
    assert places == sorted(places)


@pytest.mark.parametrize("command", [*STAGES, "run", "demo", "slide", "models", "encoders", "config"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['wsi-mil', '--help']\n"
        "from wsi_mil.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'scipy', 'matplotlib', 'skimage', 'openslide', 'h5py', 'sklearn', 'numpy'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_stages_run_and_run_again(study: Path, tmp_path: Path) -> None:
    work = str(tmp_path / "work")
    dry = _cli("tissue", str(study), "--work", work, "--dry-run")
    assert (dry.returncode, "12 missing" in dry.stdout) == (0, True), dry.stdout
    assert not (tmp_path / "work" / "tissue").exists()
    first = _cli("tissue", str(study), "--work", work)
    assert (first.returncode, "12 made" in first.stdout) == (0, True), first.stdout + first.stderr
    again = _cli("tissue", str(study), "--work", work, "--on", "processes:2")
    assert (again.returncode, "12 found" in again.stdout) == (0, True)
    other = _cli("tissue", str(study), "tissue.mpp=4", "--work", work)
    assert other.returncode == 2
    assert "tissue.mpp: 8.0 -> 4.0" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_failed_slide_is_told_and_counts(study: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    (slides / "bad.svs").write_text("no slide")
    (slides / "good.tiff").write_bytes((study.parent / "cohort" / "slides" / "S01.tiff").read_bytes())
    path = tmp_path / "study.yaml"
    path.write_text("cohort: {slides: slides}\n")
    ended = _cli("tissue", str(path), "--work", str(tmp_path / "work"))
    assert ended.returncode == 1
    assert "1 made, 1 failed" in ended.stdout
    assert "bad" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tissue", "none.yaml", "--work", "w"], "cannot read the study file none.yaml"),
        (["tissue", "study.yaml", "tile.mmp=1", "--work", "w"], "tile.mmp: unknown key: did you mean 'mpp'?"),
        (["tissue", "study.yaml", "--work", "w", "--on", "mars"], "cannot run on 'mars'"),
        (["tissue", "study.yaml", "--work", "w", "--shard", "4/4"], "cannot read --shard '4/4'"),
        (["run", "study.yaml", "--work", "w", "--redo", "tisue"], "unknown stage 'tisue': did you mean 'tissue'?"),
        (["predict", "--work", "w"], "predict needs a study file, or --model and --slides"),
        (["predict", "--model", ".", "--slides", ".", "--work", "w"], "holds no trained model"),
        (["slide", "none.svs"], "does not exist"),
    ],
)
def test_faults_are_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "study.yaml").write_text("cohort: {slides: slides}\n")
    ended = _cli(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert words in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_slide_is_described(study: Path) -> None:
    ended = _cli("slide", str(study.parent / "cohort" / "slides" / "S01.tiff"))
    assert ended.returncode == 0
    assert "0.5 x 0.5" in ended.stdout
    assert "metadata" in ended.stdout


def test_the_aggregators_are_listed() -> None:
    ended = _cli("models")
    assert ended.returncode == 0
    for name in MODELS:
        assert name in ended.stdout
    for word in ("paper", "cost", "spatial", "exact map", "when"):
        assert word in ended.stdout.lower(), word


def test_a_scale_given_by_flag_wins_and_is_told(study: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"cohort: {{slides: '{study.parent / 'cohort' / 'slides' / 'S01.tiff'}', mpp: 1.0}}\n")
    assert _cli("tissue", str(path), "--work", str(tmp_path / "work")).returncode == 0
    told = (tmp_path / "work" / "tissue" / ".made" / "S01.json").read_text()
    assert '"mpp_source": "flag"' in told


def test_new_slides_in_one_command(study: Path, tmp_path: Path) -> None:
    settings = ["tile.mpp=1", "tile.size_px=64", "train.epochs=1", "split.folds=2", "split.select=0"]
    for stage in ("tissue", "tile", "extract", "split", "train"):
        ended = _cli(stage, str(study), *settings, "--work", str(tmp_path / "work"))
        assert ended.returncode == 0, ended.stdout + ended.stderr
    slides = tmp_path / "new"
    slides.mkdir()
    (slides / "N1.tiff").write_bytes((study.parent / "cohort" / "slides" / "S05.tiff").read_bytes())
    model = tmp_path / "work" / "train" / "abmil"
    ended = _cli("predict", "--model", str(model), "--slides", str(slides), "--work", str(tmp_path / "out"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table = (tmp_path / "out" / "predict" / "abmil" / "slides.csv").read_text().splitlines()
    assert len(table) == 2
    assert table[1].startswith("N1,")
    assert (tmp_path / "out" / "heatmap" / "abmil" / "N1" / "N1.png").exists()
