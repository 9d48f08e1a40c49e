"""A study file is checked whole, and shows itself with the meaning of each field."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_mil.config import explain, parse
from wsi_mil.errors import ConfigError, ModelError
from wsi_mil.stages import STAGES, Study, load_study, study_of_model
from wsi_mil.stages.stage import Stage
from wsi_mil.stages.train import Train
from wsi_mil.training import FitSettings

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_stage_is_a_section_with_the_summary_that_help_shows() -> None:
    study = Study()
    for name, summary in STAGES.items():
        stage = getattr(study, name)
        assert isinstance(stage, Stage)
        assert stage.name == name
        assert (type(stage).__doc__ or "").splitlines()[0] == summary


def test_every_field_says_what_it_means() -> None:
    for section in Study.model_fields.values():
        for name, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description, f"{section.annotation}.{name}"


def test_default_yaml_is_what_the_code_says() -> None:
    text = (CONFIGS / "default.yaml").read_text()
    assert text == explain(Study()), "write it anew: wsi-mil config > configs/default.yaml"
    assert parse(text, into=Study, folder=Path(), where="default.yaml") == Study()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_TEST_DATA", "/data")
    assert isinstance(load_study(path), Study)


def test_an_unknown_key_in_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("tile:\n  mmp: 0.5\n")
    with pytest.raises(ConfigError, match=r"tile.mmp: unknown key: did you mean 'mpp'\?"):
        load_study(path)


def test_numbers_as_classes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("task: {label: y, classes: [0, 1]}\nsplit: {where: {kind: [1, b]}}")
    study = load_study(path)
    assert study.task.classes == ("0", "1")
    assert study.split.where == {"kind": ("1", "b")}


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no trained model"):
        study_of_model(tmp_path, slides="x")


def test_a_model_brings_what_it_needs_to_train_and_the_study_wins() -> None:
    train = Train()
    assert train.settings({}) == FitSettings()
    assert train.settings({"lr": 1e-3, "batch_bags": 8}) == FitSettings(lr=1e-3, batch_bags=8)
    assert Train(lr=2e-3, batch_bags=1).settings({"lr": 1e-3, "batch_bags": 8}) == FitSettings(lr=2e-3)
