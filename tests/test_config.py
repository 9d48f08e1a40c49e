"""Study files: every fault at once, with its place and the nearest known name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from wsi_mil.config import Section, StudyPath, explain, load, parse
from wsi_mil.errors import ConfigError


class Inner(Section):
    """Tiles."""

    mpp: float = Field(default=0.5, gt=0)
    """Scale."""
    table: StudyPath | None = None
    """A table."""


class Outer(Section):
    """All."""

    tile: Inner = Inner()
    names: tuple[str, ...] = ()
    """Names."""


def _parse(text: str, *overrides: str) -> Outer:
    return parse(text, into=Outer, overrides=overrides, folder=Path("/study"), where="study.yaml")


def test_values_and_overrides() -> None:
    assert _parse("tile: {mpp: 1}", "tile.mpp=0.25").tile.mpp == 0.25
    assert _parse("", "names=[a, b]").names == ("a", "b")


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"tile.mmp: unknown key: did you mean 'mpp'\?  \(study.yaml, line 2\)"):
        _parse("tile:\n  mmp: 1")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        _parse("tile:\n  mpp: -1\n  other: 2\nnames: 3")
    told = str(caught.value)
    assert "tile.mpp" in told
    assert "tile.other" in told
    assert "names" in told
    assert len(told.splitlines()) == 3


def test_a_fault_of_an_override_says_so() -> None:
    with pytest.raises(ConfigError, match=r"tile.mpp: .*-3.*\(the command line\)"):
        _parse("tile: {mpp: 1}", "tile.mpp=-3")
    with pytest.raises(ConfigError, match="section.key=value"):
        _parse("", "tile.mpp")


def test_relative_paths_start_at_the_study() -> None:
    assert _parse("tile: {table: tiles.csv}").tile.table == Path("/study/tiles.csv")
    assert _parse("tile: {table: /elsewhere/tiles.csv}").tile.table == Path("/elsewhere/tiles.csv")


def test_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_FOR_TEST", "data")
    assert _parse("tile: {table: '${DATA_FOR_TEST}/t.csv'}").tile.table == tmp_path / "data" / "t.csv"
    monkeypatch.delenv("DATA_FOR_TEST")
    with pytest.raises(ConfigError, match="DATA_FOR_TEST, which is not set"):
        _parse("tile: {table: '${DATA_FOR_TEST}/t.csv'}")


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "is not YAML"), ("- 1", "sections"), ("tile: 3", "tile: "), ("", None)]
)
def test_files_that_are_no_study(text: str, words: str | None, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    if words is None:
        assert load(path, into=Outer) == Outer()
    else:
        with pytest.raises(ConfigError, match=words):
            load(path, into=Outer)


def test_a_missing_study_file() -> None:
    with pytest.raises(ConfigError, match="cannot read the study file"):
        load(Path("/nowhere/study.yaml"), into=Outer)


def test_explain_reads_back_as_the_same_configuration() -> None:
    made = _parse("tile: {mpp: 0.25}\nnames: [a]")
    text = explain(made)
    assert "# Scale." in text
    assert _parse(text) == made
