"""How unknown a slide looks: four situations with known answers, and what each score must keep to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.tasks import Classification
from wsi_mil.training import KINDS, Bags, FitSettings, Novelty, Said, fit, fit_novelty, infer, sampled_tiles
from wsi_mil.training.novelty import tile_novelty, top_mean
from wsi_mil.training.outliers import Conic, deviation_loss

DIM, TILES, WITNESSES, SHIFT = 16, 150, 22, 5.0
CELLS = np.stack([np.arange(TILES) % 15, np.arange(TILES) // 15], axis=1)
OF_BAG = ("maxlogit", "energy", "norm", "maha", "knn", "epcc")


@dataclass
class Toy:
    """Three known classes of which 15 % of the tiles tell; what a gated ABMIL says of known and unknown bags."""

    learnt: list[Said]
    truth: NDArray[np.int64]
    known: list[Said]
    validation: list[Said]
    unknown: dict[str, list[Said]]
    negatives: list[NDArray[np.float32]]
    right: float

    def scores(self, name: str) -> tuple[Novelty, dict[str, float]]:
        """AUROC of each unknown kind against the known; parts in spreads of known validation slides."""
        fitted = fit_novelty(name, self.learnt, self.truth, negatives=self.negatives)
        seen = np.stack([fitted.of(one) for one in self.validation])

        def of(bags: list[Said]) -> list[float]:
            return [float(((fitted.of(one) - seen.mean(0)) / seen.std(0)).max()) for one in bags]

        low = of(self.known)
        return fitted, {
            kind: float(roc_auc_score([0] * len(low) + [1] * len(bags), low + of(bags)))
            for kind, bags in self.unknown.items()
        }


@pytest.fixture(scope="module")
def toy() -> Toy:
    random = np.random.default_rng(0)

    def bag(*kinds: int) -> NDArray[np.float32]:
        features = random.normal(size=(TILES, DIM)).astype(np.float32)
        for number, kind in enumerate(kinds):
            features[number * WITNESSES : (number + 1) * WITNESSES, kind] += SHIFT
        return features

    truth = np.arange(120) % 3
    learnt = [bag(kind) for kind in truth]
    model = build_model("abmil", dim=DIM, n_out=3, hidden=32, attention=16)
    fit(
        model,
        Bags([(one, CELLS) for one in learnt]),
        fit_index=list(range(120)),
        select_index=[],
        targets=torch.from_numpy(truth),
        task=Classification(classes=("a", "b", "c")),
        settings=FitSettings(epochs=12, lr=3e-3, batch_bags=4),
        seed=0,
    )
    mean, scale = model.feature_mean.numpy(), model.feature_scale.numpy()

    def said(features: NDArray[np.float32]) -> Said:
        told = infer(model, features, CELLS)
        return Said(told.logits, told.embedding, np.clip((features - mean) / scale, -5, 5))

    known = [said(bag(number % 3)) for number in range(40)]
    unknown = {
        "novel": [said(bag(9)) for _ in range(40)],
        "empty": [said(bag()) for _ in range(40)],
        "familiar and novel": [said(bag(number % 3, 9)) for number in range(40)],
        "two familiar": [said(bag(number % 3, (number + 1) % 3)) for number in range(40)],
    }
    return Toy(
        [said(one) for one in learnt],
        truth,
        known,
        [said(bag(number % 3)) for number in range(30)],
        unknown,
        [said(bag(12)).tiles[:WITNESSES] for _ in range(20)],
        float(np.mean([one.logits.argmax() == number % 3 for number, one in enumerate(known)])),
    )


@pytest.mark.parametrize("name", OF_BAG)
def test_scores_of_the_bag_notice_what_is_absent_and_not_what_is_added(toy: Toy, name: str) -> None:
    assert toy.right == 1
    found = toy.scores(name)[1]
    assert found["novel"] >= 0.95
    assert found["empty"] >= 0.95
    assert 0.4 <= found["familiar and novel"] <= 0.6
    assert found["two familiar"] >= 0.8


def test_scores_of_tiles_notice_what_is_added_and_not_what_is_absent(toy: Toy) -> None:
    found = toy.scores("inst_topk")[1]
    assert found["familiar and novel"] >= 0.9
    assert found["novel"] >= 0.9
    assert found["empty"] <= 0.1


def test_together_they_notice_all_four(toy: Toy) -> None:
    assert min(toy.scores("combo")[1].values()) >= 0.9


@pytest.mark.parametrize("name", ["hybrid", "deviation"])
def test_heads_taught_with_negatives_know_that_kind(toy: Toy, name: str) -> None:
    fitted = fit_novelty(name, toy.learnt, toy.truth, negatives=toy.negatives)
    low = [float(fitted.of(one)[0]) for one in toy.known]
    random, high = np.random.default_rng(1), []
    for one in toy.known:
        tiles = one.tiles.copy()
        tiles[WITNESSES : 2 * WITNESSES] = toy.negatives[random.integers(20)]
        high.append(float(fitted.of(Said(one.logits, one.embedding, tiles))[0]))
    assert roc_auc_score([0] * 40 + [1] * 40, low + high) >= 0.95
    with pytest.raises(ModelError, match="give calibrate.negatives"):
        fit_novelty(name, toy.learnt, toy.truth)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_score_is_the_same_when_read_back_and_when_fitted_again(toy: Toy, name: str) -> None:
    fitted, again = (fit_novelty(name, toy.learnt, toy.truth, negatives=toy.negatives, seed=3) for _ in range(2))
    read = Novelty.from_bytes(fitted.to_bytes(), "here")
    for one in (toy.known[0], toy.unknown["novel"][0]):
        np.testing.assert_array_equal(fitted.of(one), read.of(one))
        np.testing.assert_array_equal(fitted.of(one), again.of(one))
    with pytest.raises(ModelError, match="is cut off or no safetensors"):
        Novelty.from_bytes(fitted.to_bytes()[:9], "here")


def test_energy_and_the_highest_logit_are_near_and_only_msp_ignores_a_constant(toy: Toy) -> None:
    one = toy.known[0]
    moved = Said(one.logits + 3, one.embedding, one.tiles)
    of = {name: fit_novelty(name, [one], np.zeros(1, int)).of for name in ("maxlogit", "energy", "msp")}
    highest, lse = -of["maxlogit"](one)[0], -of["energy"](one)[0]
    assert highest <= lse <= highest + np.log(3)
    assert of["msp"](moved)[0] == pytest.approx(of["msp"](one)[0], abs=1e-6)
    assert of["maxlogit"](moved)[0] == pytest.approx(of["maxlogit"](one)[0] - 3)
    assert of["energy"](moved)[0] == pytest.approx(of["energy"](one)[0] - 3, abs=1e-5)


def test_a_cone_is_highest_at_its_centre_and_falls_along_every_ray() -> None:
    torch.manual_seed(0)
    head = Conic(torch.nn.functional.layer_norm(torch.randn(2, 6), (6,)))
    with torch.no_grad():
        head.w.normal_()
        head.centre.copy_(torch.nn.functional.layer_norm(head.centre, (6,)))
        top = head(head.centre).diagonal()
        np.testing.assert_allclose(top.numpy(), head.b.detach().numpy(), atol=1e-3)
        away = torch.randn(500, 6)
        others = torch.nn.functional.layer_norm(head.centre[0] + away, (6,))
        distance = (others - head.centre[0]).abs().sum(dim=1)
        assert bool((head(others)[:, 0] <= head.b[0] - 0.99 * distance + 1e-3).all())


def test_the_deviation_loss_is_nothing_where_nothing_is_to_be_moved() -> None:
    prior = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    at = torch.stack([prior.mean(), prior.mean() + 5.01 * prior.std()])
    assert float(deviation_loss(at, torch.tensor([0, 1]), prior)) == pytest.approx(0, abs=1e-6)
    assert float(deviation_loss(at, torch.tensor([1, 0]), prior)) == pytest.approx((5 + 5.01) / 2, abs=1e-3)


def test_a_tile_is_compared_with_the_bank_by_hand() -> None:
    bank = np.array([[0, 0], [1, 0], [5, 0]], np.float32)
    tiles = np.array([[0, 0], [5, 3]], np.float32)
    np.testing.assert_allclose(tile_novelty(tiles, bank, 1), [0, 3], atol=1e-6)
    np.testing.assert_allclose(tile_novelty(tiles, bank, 2), [1, 5], atol=1e-6)
    assert top_mean(np.arange(20.0), 0.1) == 18.5
    assert top_mean(np.array([7.0]), 0.1) == 7
    many = np.zeros((5000, 2), np.float32)
    assert sampled_tiles(many, 4, 0).shape == (512, 2)


def test_unknown_names_and_no_slides_are_refused(toy: Toy) -> None:
    with pytest.raises(ModelError, match="did you mean 'maxlogit'"):
        fit_novelty("maxlogits", toy.learnt, toy.truth)
    with pytest.raises(ModelError, match="no training slide"):
        fit_novelty("knn", [], toy.truth)
