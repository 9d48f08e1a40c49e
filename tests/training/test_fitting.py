"""Training: which epoch is taken, what is learnt from which role, and that the seed decides everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contracts.planted import planted, two_classes
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, build_model
from wsi_mil.training import Bags, FitSettings, Fitted, feature_moments, fit, infer

FIT, SELECT, OTHER = list(range(12)), list(range(12, 18)), list(range(18, 24))
QUICK = FitSettings(epochs=3, lr=3e-3)


def _fit(source: Bags, targets: Tensor, *, seed: int = 0, settings: FitSettings = QUICK) -> tuple[MIL, Fitted]:
    model = build_model("abmil", dim=32, n_out=2, seed=seed, hidden=16, attention=8)
    fitted = fit(
        model,
        source,
        fit_index=FIT,
        select_index=SELECT,
        targets=targets,
        task=two_classes(),
        settings=settings,
        seed=seed,
    )
    return model, fitted


def _same(first: Fitted, second: Fitted) -> bool:
    return (
        first.history == second.history
        and first.epoch == second.epoch
        and all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    )


@pytest.fixture(scope="module")
def cohort() -> tuple[Bags, Tensor]:
    source, targets, _ = planted(24, delta=4, share=0.1, seed=0, tiles=(20, 40))
    return source, targets


def test_the_loss_of_the_select_role_is_that_of_the_model_in_use(cohort: tuple[Bags, Tensor]) -> None:
    source, targets = cohort
    model = build_model("abmil", dim=32, n_out=2, hidden=16, attention=8, dropout=0.9)
    task = two_classes()
    settings = FitSettings(epochs=1)
    fitted = fit(
        model,
        source,
        fit_index=FIT,
        select_index=SELECT,
        targets=targets,
        task=task,
        settings=settings,
        seed=0,
    )
    losses = [
        task.loss(torch.tensor(infer(model, *source.load(bag)).logits)[None], targets[[bag]]).item() for bag in SELECT
    ]
    assert fitted.history[0]["select_loss"] == pytest.approx(np.mean(losses), abs=1e-6)


def test_the_epoch_with_the_lowest_loss_is_taken(cohort: tuple[Bags, Tensor]) -> None:
    # So high a rate that the loss goes up and down.
    _, fitted = _fit(*cohort, settings=FitSettings(epochs=8, lr=0.1, patience=0))
    losses = [row["select_loss"] for row in fitted.history]
    assert len(losses) == 8
    assert fitted.epoch == 1 + int(np.argmin(losses)) < 8
    assert fitted.chosen_by == "lowest loss on the select role"


def test_the_chosen_weights_are_those_of_that_epoch(cohort: tuple[Bags, Tensor]) -> None:
    source, targets = cohort
    model, fitted = _fit(source, targets, settings=FitSettings(epochs=8, lr=0.1, patience=0))
    assert not model.training
    assert all(torch.equal(value, fitted.state[name]) for name, value in model.state_dict().items())
    task = two_classes()
    losses = [
        task.loss(torch.tensor(infer(model, *source.load(bag)).logits)[None], targets[[bag]]).item() for bag in SELECT
    ]
    assert np.mean(losses) == pytest.approx(fitted.history[fitted.epoch - 1]["select_loss"], abs=1e-6)


def test_patience_ends_training(cohort: tuple[Bags, Tensor]) -> None:
    _, fitted = _fit(*cohort, settings=FitSettings(epochs=60, lr=0.1, patience=2))
    assert len(fitted.history) == fitted.epoch + 2 < 60


def test_without_a_select_role_the_last_epoch_is_taken(
    cohort: tuple[Bags, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model("abmil", dim=32, n_out=2, hidden=16, attention=8)
    settings = FitSettings(epochs=4, patience=1)
    arguments = {"targets": cohort[1], "task": two_classes(), "settings": settings, "seed": 0}
    fitted = fit(model, cohort[0], fit_index=FIT, select_index=[], **arguments)
    assert fitted.epoch == 4
    assert fitted.chosen_by == "last epoch: the select role is empty"
    assert "select_loss" not in fitted.history[0]
    assert "the last one, 4, is taken" in caplog.text


def test_the_seed_decides_everything(cohort: tuple[Bags, Tensor]) -> None:
    settings = FitSettings(epochs=3, tiles_per_bag=15, batch_bags=2)
    torch.manual_seed(1)
    _, first = _fit(*cohort, settings=settings)
    torch.manual_seed(2)
    wanted = torch.rand(4)
    torch.manual_seed(2)
    _, second = _fit(*cohort, settings=settings)
    assert torch.equal(torch.rand(4), wanted), "the global random state is left as it was"
    _, other = _fit(*cohort, settings=settings, seed=1)
    assert _same(first, second)
    assert not _same(first, other)


def test_poison_outside_the_roles_changes_nothing(cohort: tuple[Bags, Tensor]) -> None:
    source, targets = cohort
    _, clean = _fit(source, targets)
    poisoned = targets.clone()
    poisoned[OTHER] = 1 - poisoned[OTHER]
    broken = [source.load(bag) for bag in range(24)]
    for bag in OTHER:
        broken[bag] = (np.full_like(broken[bag][0], 1e6), broken[bag][1])
    _, after = _fit(Bags(broken), poisoned)
    assert _same(clean, after)


def test_labels_of_the_select_role_choose_the_epoch_and_teach_nothing(cohort: tuple[Bags, Tensor]) -> None:
    source, targets = cohort
    settings = FitSettings(epochs=4, patience=0)
    _, clean = _fit(source, targets, settings=settings)
    flipped = targets.clone()
    flipped[SELECT] = 1 - flipped[SELECT]
    _, after = _fit(source, flipped, settings=settings)
    assert [row["fit_loss"] for row in after.history] == [row["fit_loss"] for row in clean.history]
    assert after.history != clean.history


def test_standardisation_is_fitted_on_the_fit_role_alone(cohort: tuple[Bags, Tensor]) -> None:
    source, targets = cohort
    model, _ = _fit(source, targets)
    tiles = np.concatenate([source.load(bag)[0] for bag in FIT]).astype(np.float64)
    np.testing.assert_allclose(model.feature_mean, tiles.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.feature_scale, tiles.std(0), rtol=1e-6)
    plain, _ = _fit(source, targets, settings=FitSettings(epochs=1, standardise=False))
    assert not plain.feature_mean.any()
    assert (plain.feature_scale == 1).all()


def test_moments_keep_their_digits_and_spare_constant_features() -> None:
    random = np.random.default_rng(0)
    rounding = 2000 + random.integers(0, 2, 500)  # constant but for rounding
    columns = [1e4 + 50 * random.normal(size=500), np.full(500, 3.3), np.zeros(500), rounding]
    features = np.stack(columns, axis=1).astype(np.float32)
    bags = Bags([(part, np.zeros((len(part), 2), dtype=np.int64)) for part in np.split(features, [7, 300])])
    mean, scale, read = feature_moments(bags, range(3))
    assert read == (0, 1, 2)
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(scale[0], features[:, 0].astype(np.float64).std(), rtol=1e-3)
    assert scale[1:].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"batch_bags": 0}, {"tiles_per_bag": -1}, {"lr": 0.0}, {"warmup": 1.0}, {"weight_decay": -1.0}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=next(iter(settings))):
        FitSettings(**settings)


def test_the_rate_rises_then_falls(cohort: tuple[Bags, Tensor]) -> None:
    _, fitted = _fit(*cohort, settings=FitSettings(epochs=10, lr=1e-3, warmup=0.2, patience=0))
    rates = [row["lr"] for row in fitted.history]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1e-3, rel=0.05)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 1e-4


def test_bf16_learns_the_same(cohort: tuple[Bags, Tensor]) -> None:
    full = _fit(*cohort, settings=FitSettings(epochs=6, lr=3e-3))[1].history[-1]["fit_loss"]
    half = _fit(*cohort, settings=FitSettings(epochs=6, lr=3e-3, precision="bf16"))[1].history[-1]["fit_loss"]
    assert math.isclose(full, half, abs_tol=0.05)


def test_half_precision_features_and_progress(cohort: tuple[Bags, Tensor]) -> None:
    source, targets = cohort
    half = Bags([(features.astype(np.float16), cells) for features, cells in map(source.load, range(24))])
    rows: list[dict[str, float]] = []
    model = build_model("abmil", dim=32, n_out=2, hidden=16, attention=8)
    fitted = fit(
        model,
        half,
        fit_index=FIT,
        select_index=SELECT,
        targets=targets,
        task=two_classes(),
        settings=QUICK,
        seed=0,
        progress=rows.append,
    )
    assert rows == fitted.history
