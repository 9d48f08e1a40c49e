"""What is said of the slides of a work folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from viewer.conftest import Planted

from wsi_mil.errors import StageError
from wsi_mil.files import write_text
from wsi_mil.viewer import read_cases


def test_the_list_says_what_the_tables_say(seen: Planted) -> None:
    cohort = seen.cohort()
    assert cohort.models == ("abmil", "clam")
    lesion, benign = cohort.cases.values()
    assert (lesion.slide, lesion.label, lesion.flags) == ("L1", "L", ())
    told = lesion.predictions["abmil"]
    assert (told.predicted, told.probabilities, told.calibrated) == ("L", {"B": 0.1, "L": 0.9}, {"L": 0.75})
    assert lesion.predictions["clam"].predicted == "B"
    assert benign.predictions["abmil"].flags == ("rejected",)
    assert benign.predictions["abmil"].note.startswith("too few tiles")
    assert benign.flags == ("pen 30%",), "one fault in a hundred tiles is not worth a flag"
    assert set(lesion.maps) == {"abmil", "clam"}


def test_decisions_and_sets_are_flags(planted: Planted) -> None:
    header = "slide,label,p_B,p_L,calibrated_B,calibrated_L,threshold,decision,set,predicted,status,note"
    rows = [header, "L1,L,0.6,0.4,0.55,0.45,0.3,L,B|L,B,predicted,", "B1,B,0.9,0.1,0.8,0.2,0.3,B,none,B,predicted,", ""]
    write_text(planted.work / "calibrate" / "abmil" / "slides.csv", "\n".join(rows))
    lesion, benign = planted.cohort().cases.values()
    assert lesion.predictions["abmil"].flags == ("B or L", "called L")
    assert lesion.predictions["abmil"].calibrated == {"B": 0.55, "L": 0.45}
    assert benign.predictions["abmil"].flags == ("unknown",)
    write_text(planted.work / "predict" / "abmil" / "slides.csv", "slide,label,p_B,p_L,predicted\nL1,L,0,1,L\n")
    assert planted.cohort().cases[lesion.key].predictions["abmil"].calibrated == {}, "it was predicted anew since"


def test_keys_are_opaque_and_last(seen: Planted) -> None:
    first, second = (list(seen.cohort().cases) for _ in range(2))
    assert first == second
    assert all(key.isalnum() and "L1" not in key and len(key) == 16 for key in first)


def test_slides_that_were_moved_are_found(planted: Planted) -> None:
    (planted.root / "slides").rename(planted.root / "elsewhere")
    cohort = read_cases(planted.work, slides=planted.root / "elsewhere")
    assert all(Path(case.path).is_file() for case in cohort.cases.values())


@pytest.mark.parametrize(
    ("what", "told"), [("root", "no work folder"), ("truth", "no folder"), ("slides", "no folder")]
)
def test_a_folder_that_is_none_is_said(seen: Planted, tmp_path: Path, what: str, told: str) -> None:
    wrong = {"root": seen.work, what: tmp_path / "missing"}
    root = wrong.pop("root")
    with pytest.raises(StageError, match=told):
        read_cases(root, **wrong)


def test_the_viewer_needs_no_torch() -> None:
    modules = ", ".join(f"wsi_mil.viewer.{name}" for name in ("server", "listen", "export", "drawn"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
