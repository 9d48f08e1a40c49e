"""Attribution: analytic cases of every method, and that each works for each aggregator that it is for."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, MODELS, Attribution, Clinical, attribute, build_model, can

DIM, OUT = 6, 3
SMALL = {"lca_db": {}, "gashis": {"hidden": 16}, "persam": {"hidden": 16, "heads": 2}, "gtp": {"clusters": 4}}


def bag(tiles: int = 9) -> tuple[Tensor, Tensor]:
    features = torch.randn(tiles, DIM, generator=torch.Generator().manual_seed(tiles))
    rows = torch.arange(tiles)
    return features, torch.stack([rows % 4, rows // 4], dim=1)


def built(name: str, **options: object) -> MIL:
    model = build_model(name, dim=DIM, n_out=OUT, **{**SMALL.get(name, {}), **options}).eval()
    model.standardise(torch.full((DIM,), 0.2), torch.full((DIM,), 1.5))
    return model


def logits(model: MIL, features: Tensor, cells: Tensor) -> Tensor:
    with torch.no_grad():
        return model(features, cells, torch.tensor([0, len(features)])).logits[0]


class Linear(MIL):
    """The mean of the standardised features under a linear head: every method has an answer by hand."""

    def pool(self, features, cells, offsets, clinical=None):  # type: ignore[no-untyped-def]
        parts = torch.split(self.standardised(features), offsets.diff().tolist())
        mean = torch.stack([part.mean(0) for part in parts])
        pooled = super().pool(features, cells, offsets, clinical)
        return pooled._replace(logits=mean @ self.weight.T + 0.7)


def linear() -> Linear:
    model = built("mean")
    model.__class__ = Linear
    model.weight = torch.randn(OUT, DIM, generator=torch.Generator().manual_seed(5))
    return model  # type: ignore[return-value]


def test_gradients_of_a_linear_mean_are_its_contributions() -> None:
    model, (features, cells) = linear(), bag()
    by_hand = model.standardised(features) @ model.weight.T / len(features)
    for method in ("integrated_gradients", "gradient_input"):
        torch.testing.assert_close(attribute(method, model, features, cells), by_hand, atol=1e-5, rtol=0)


def test_occlusion_of_a_mean_follows_from_its_contributions() -> None:
    model, (features, cells) = built("mean"), bag()
    with torch.no_grad():
        contributions = model(features, cells, torch.tensor([0, 9])).contributions
    # without tile k the others' shares grow from 1/9 to 1/8
    by_hand = contributions - (contributions.sum(0) - contributions) / 8
    torch.testing.assert_close(attribute("occlusion", model, features, cells), by_hand, atol=1e-5, rtol=0)


def test_occlusion_leaves_out_one_tile_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (features, cells) = built("gashis"), bag()
    whole, found = logits(model, features, cells), attribute("occlusion", model, features, cells)
    for tile in range(9):
        kept = torch.arange(9) != tile
        torch.testing.assert_close(found[tile], whole - logits(model, features[kept], cells[kept]), atol=1e-5, rtol=0)
    monkeypatch.setattr("wsi_mil.models.attribution.TILES_AT_ONCE", 20)  # two bags a pass
    torch.testing.assert_close(attribute("occlusion", model, features, cells), found, atol=1e-5, rtol=0)


def test_a_tile_alone_is_a_bag_of_one() -> None:
    model, (features, cells) = built("abmil"), bag()
    found = attribute("alone", model, features, cells)
    for tile in range(9):
        torch.testing.assert_close(found[tile], logits(model, features[[tile]], cells[[tile]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["abmil", "clam", "transmil", "gashis", "gtp"])
def test_integrated_gradients_are_complete(name: str) -> None:
    model, (features, cells) = built(name), bag()
    features[3] = 40.0  # beyond the limit at which features are cut
    nowhere = model.feature_mean.expand(9, -1).clone()
    difference = logits(model, features, cells) - logits(model, nowhere, cells)
    total = attribute("integrated_gradients", model, features, cells).sum(0)
    torch.testing.assert_close(total, difference, atol=0.03 * float(difference.abs().max()), rtol=0)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_aggregator_answers_every_method_it_can(name: str) -> None:
    model, (features, cells) = built(name), bag()
    for method in get_args(Attribution):
        if can(method, model):
            found = attribute(method, model, features, cells)
            assert found.shape[0] == 9
            assert found.shape[1] == OUT or method == "rollout"
            assert found.isfinite().all()
            assert not found.requires_grad


def test_who_can_be_asked_for_what() -> None:
    able = {method: {name for name in MODELS if can(method, built(name))} for method in ("rollout", "graphcam")}
    assert able == {"rollout": {"gashis", "gtp", "mil_vt", "persam"}, "graphcam": {"gtp"}}
    with pytest.raises(ModelError, match="'abmil' has no rollout"):
        attribute("rollout", built("abmil"), *bag())
    with pytest.raises(ModelError, match="occlusion"):
        attribute("oclusion", built("abmil"), *bag())


def test_rollout_is_a_share_of_what_is_read() -> None:
    features, cells = bag()
    torch.testing.assert_close(attribute("rollout", built("gashis"), features, cells).sum(0), torch.ones(1))
    for name in ("mil_vt", "persam", "gtp"):
        found = attribute("rollout", built(name), features, cells)
        assert (found > 0).all()
        assert (found.sum(0) < 1).all()  # class tokens keep the rest


def test_rollout_without_attention_is_the_weight_of_the_tiles_themselves() -> None:
    model, (features, cells) = built("gashis"), bag()
    for layer in model.aggregator.wide:  # type: ignore[union-attr]
        torch.nn.init.zeros_(layer.query.weight)
        torch.nn.init.zeros_(layer.query.bias)
    # all look evenly at all: half their own weight, half that of everybody, which is the same
    torch.testing.assert_close(attribute("rollout", model, features, cells), torch.full((9, 1), 1 / 9))


def test_a_tile_alone_keeps_the_record() -> None:
    features, cells = bag()
    for name, more in (("persam", {}), ("abmil", {"fusion": "gated"})):
        model = built(name, factors=(1, 2), **more)
        record = Clinical(torch.tensor([[0.3, 1.0, 0.0]]), torch.zeros(1, 3, dtype=torch.bool))
        with torch.no_grad():
            said = model(features[:1], cells[:1], torch.tensor([0, 1]), record).logits[0]
        for method in ("alone", "occlusion", "integrated_gradients", "gradient_input"):
            assert attribute(method, model, features, cells, record).isfinite().all()
        torch.testing.assert_close(attribute("alone", model, features, cells, record)[0], said, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["none", "gated", "concat"])
@pytest.mark.parametrize("name", ["gashis", "lca_db"])
def test_the_parts_of_two_streams_add_up_to_the_contributions(name: str, fusion: str) -> None:
    more = {} if fusion == "none" else {"factors": (2,), "fusion": fusion}
    model, (features, cells) = built(name, **more), bag()
    with torch.no_grad():
        pooled = model(features, cells, torch.tensor([0, 9]))
    parts = [pooled.aux[part] for part in model.tile_maps if part in pooled.aux]
    if fusion == "concat":
        assert parts == []
    else:
        torch.testing.assert_close(sum(parts), pooled.contributions, atol=1e-6, rtol=0)
