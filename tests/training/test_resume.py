"""A run that was killed and goes on ends as one that was not: the same weights, history and epoch, bit by bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.planted import planted, two_classes
from torch import Tensor

from wsi_mil.models import build_model
from wsi_mil.training import Bags, FitSettings, Fitted, Snapshot, fit

FIT, SELECT = list(range(12)), list(range(12, 18))


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def cohort() -> tuple[Bags, Tensor]:
    source, targets, _ = planted(18, delta=4, share=0.1, seed=0, tiles=(20, 40))
    return source, targets


def run(
    cohort: tuple[Bags, Tensor],
    snapshot: Snapshot | None,
    *,
    name: str = "abmil",
    stop: int = 0,
    settings: FitSettings,
    **options: Any,
) -> Fitted:
    def progress(row: dict[str, float]) -> None:
        # After the epoch and before its snapshot: what it did is lost.
        if row["epoch"] == stop:
            raise KilledError

    torch.manual_seed(stop)  # the process that goes on starts from another state
    return fit(
        build_model(name, dim=32, n_out=2, seed=0, hidden=16, **options),
        cohort[0],
        fit_index=FIT,
        select_index=SELECT,
        targets=cohort[1],
        task=two_classes(),
        settings=settings,
        seed=3,
        snapshot=snapshot,
        progress=progress,
    )


def same(first: Fitted, second: Fitted) -> bool:
    told = (first.history, first.epoch, first.chosen_by) == (second.history, second.epoch, second.chosen_by)
    return told and all(torch.equal(first.state[name], second.state[name]) for name in first.state)


@pytest.mark.parametrize(
    ("name", "settings", "options"),
    [
        ("abmil", FitSettings(epochs=6, lr=3e-3, tiles_per_bag=15), {"dropout": 0.5}),
        ("abmil", FitSettings(epochs=6, lr=3e-3, average=0.9, batch_bags=2), {"dropout": 0.2}),
        ("loss_attention", FitSettings(epochs=6, lr=3e-3), {"steady": 0.1}),
        ("smile", FitSettings(epochs=6, lr=3e-3), {}),
        ("mil_vt", FitSettings(epochs=6, lr=3e-3), {"heads": 2}),
    ],
)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_killed_and_resumed_is_not_told_from_uninterrupted(
    cohort: tuple[Bags, Tensor], tmp_path: Path, name: str, settings: FitSettings, options: dict[str, Any], stop: int
) -> None:
    whole = run(cohort, None, name=name, settings=settings, **options)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KilledError):
        run(cohort, Snapshot(path, key="a", every_s=0), name=name, stop=stop, settings=settings, **options)
    assert path.exists() == (stop > 1)
    again = Snapshot(path, key="a", every_s=0)
    resumed = run(cohort, again, name=name, settings=settings, **options)
    assert same(whole, resumed)
    assert len(whole.history) == 6
    assert not path.exists()


def test_it_goes_on_and_does_not_start_anew(cohort: tuple[Bags, Tensor], tmp_path: Path) -> None:
    path, settings = tmp_path / "run.safetensors", FitSettings(epochs=5)
    with pytest.raises(KilledError):
        run(cohort, Snapshot(path, key="a", every_s=0), stop=4, settings=settings)
    epochs: list[float] = []
    fit(
        build_model("abmil", dim=32, n_out=2, seed=0, hidden=16),
        cohort[0],
        fit_index=FIT,
        select_index=SELECT,
        targets=cohort[1],
        task=two_classes(),
        settings=settings,
        seed=3,
        snapshot=Snapshot(path, key="a"),
        progress=lambda row: epochs.append(row["epoch"]),
    )
    assert epochs == [4, 5]


def test_the_snapshot_of_another_run_is_not_taken(
    cohort: tuple[Bags, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, settings = tmp_path / "run.safetensors", FitSettings(epochs=3)
    with pytest.raises(KilledError):
        run(cohort, Snapshot(path, key="a", every_s=0), stop=2, settings=settings)
    with caplog.at_level(logging.INFO):
        assert Snapshot(path, key="b").read() is None
    assert "of another run" in caplog.text
    path.write_bytes(path.read_bytes()[:-50])
    assert Snapshot(path, key="a").read() is None
    assert "cannot be read" in caplog.text


def test_it_is_written_only_when_it_is_time(cohort: tuple[Bags, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(KilledError):
        run(cohort, Snapshot(path, key="a", every_s=3600), stop=2, settings=FitSettings(epochs=3))
    assert not path.exists()
