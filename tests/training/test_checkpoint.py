"""Checkpoints: what is written comes back, and what is broken or foreign is refused with a reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_mil.errors import ModelError
from wsi_mil.grid import EncoderContract
from wsi_mil.models import ABMIL, MIL, build_model
from wsi_mil.tasks import Classification, Task
from wsi_mil.training import Training, infer, load_checkpoint, model_hash, require_contract, save_checkpoint

CONTRACT = EncoderContract(
    name="toy",
    revision="1",
    weights_digest="00",
    architecture="{}",
    input_px=0,
    resize="area",
    crop="none",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    pooling="none",
    dim=6,
    precision="fp32",
    tile_px=256,
    tile_mpp=0.5,
)
TRAINING = Training(
    slides=("A1", "B2"),
    seed=3,
    repeat=0,
    fold=2,
    epoch=7,
    chosen_by="lowest loss",
    settings={"lr": 2e-4},
    scaled_on=("A1",),
    recorded_on=("A1",),
    patients=("A", "B"),
    fingerprints=("a1", "b2"),
    digests=("f0", "f1"),
)
FEATURES = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
CELLS = np.zeros((9, 2), dtype=np.int64)


def _task() -> Task:
    return Classification(positive="é").fit({"A1": {"label": "é"}, "B2": {"label": "z"}})


def _save(folder: Path, *, model: MIL | None = None, seed: int = 5) -> MIL:
    if model is None:
        model = build_model("abmil", dim=6, n_out=2, seed=seed, hidden=8, attention=4, heads="class")
    model.standardise(torch.full((6,), 0.1), torch.full((6,), 2.0))
    save_checkpoint(folder, model=model, task=_task(), contract=CONTRACT, training=TRAINING)
    return model


def test_there_and_back(tmp_path: Path) -> None:
    model = _save(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert not checkpoint.model.training
    assert checkpoint.model.spec == model.spec
    assert checkpoint.task == _task()
    assert checkpoint.contract == CONTRACT
    assert checkpoint.training == TRAINING
    assert set(checkpoint.versions) == {"wsi_mil", "torch"}
    wanted = infer(model, FEATURES, CELLS)
    assert np.array_equal(infer(checkpoint.model, FEATURES, CELLS).logits, wanted.logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert model_hash(tmp_path) == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


def test_the_same_model_makes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _save(tmp_path / name)
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    _save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"holds no {name}; give the folder"):
        load_checkpoint(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere holds no model\.json"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_off_is_refused(tmp_path: Path, name: str, share: float) -> None:
    _save(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=f"{name} is cut off"):
        load_checkpoint(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "one")
    _save(tmp_path / "two", seed=6)
    (tmp_path / "one" / "model.safetensors").write_bytes((tmp_path / "two" / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="not the one model.json was written for"):
        load_checkpoint(tmp_path / "one")


def _edit(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99 and wsi_mil"),
        ({"model": {"name": "abmill", "dim": 6, "n_out": 2, "factors": [], "options": {}}}, "did you mean 'abmil'"),
        ({"model": {"name": "abmil", "dim": 6, "n_out": 2, "factors": [], "options": {"x": 1}}}, "option of model"),
        ({"model": {"name": "abmil", "dim": 7, "n_out": 2, "factors": [], "options": {}}}, "does not fit"),
        ({"model": {"name": "abmil"}}, "does not describe a model"),
        ({"task": {"kind": "divination"}}, "unknown kind of task"),
        ({"encoder": {"mean": [], "std": []}}, "does not describe a model"),
        ({"training": {"slides": []}}, "does not describe a model"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    _save(tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(tmp_path)


def test_json_of_another_program_is_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    (tmp_path / "model.json").write_text("[1, 2]")
    with pytest.raises(ModelError, match="format 'list'"):
        load_checkpoint(tmp_path)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model.pt").write_bytes(pickle.dumps(_Bomb(mark)))
    with pytest.raises(ModelError, match=r"but model\.pt, a pickle, which is never opened"):
        load_checkpoint(tmp_path / "foreign")
    _save(tmp_path / "own")
    bomb = pickle.dumps(_Bomb(mark))
    (tmp_path / "own" / "model.safetensors").write_bytes(bomb)
    _edit(tmp_path / "own", weights_sha256=hashlib.sha256(bomb).hexdigest())
    with pytest.raises(ModelError, match="does not fit"):
        load_checkpoint(tmp_path / "own")
    assert not mark.exists()


def test_another_encoder_is_refused_with_the_differences(tmp_path: Path) -> None:
    _save(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    require_contract(checkpoint, dataclasses.replace(CONTRACT, licence="other"), where="slide A1")
    other = dataclasses.replace(CONTRACT, name="timm:x", tile_mpp=1.0)
    with pytest.raises(ModelError, match=r"slide A1: .*name: 'toy' -> 'timm:x'; tile_mpp: 0.5 -> 1.0"):
        require_contract(checkpoint, other, where="slide A1")


def test_a_class_of_ones_own_is_saved_but_not_found_by_name(tmp_path: Path) -> None:
    _save(tmp_path, model=build_model(ABMIL, dim=6, n_out=2))
    with pytest.raises(ModelError, match="unknown model 'wsi_mil.models.abmil.ABMIL'"):
        load_checkpoint(tmp_path)
