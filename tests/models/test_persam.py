"""PersAM: its three maps, what a record can change and what it cannot, and a rule that needs record and tiles both."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged
from torch import Tensor
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, Clinical, Pooled, build_model, replace_factor

FACTORS = (1, 3, 2)


class TestPersAM(AggregatorContract):
    """By tiles alone."""

    name = "persam"
    options = {"hidden": 16, "heads": 2}
    steps = 70


class TestPersAMAsItStands(AggregatorContract):
    """Maps that are not brought back to a sum of one."""

    name = "persam"
    options = {"hidden": 16, "heads": 2, "renorm": False}
    steps = 70


def _model(factors: tuple[int, ...] = FACTORS, **options: object) -> MIL:
    return build_model("persam", dim=4, n_out=2, hidden=8, heads=2, factors=factors, **options).eval().double()


def _record(bags: int, seed: int = 0) -> Clinical:
    values = torch.randn(bags, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Clinical(values, torch.zeros(bags, 6, dtype=torch.bool))


def _same(one: Pooled, other: Pooled) -> None:
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("renorm", [True, False])
def test_the_three_maps_and_the_logit(renorm: bool) -> None:
    model = _model(renorm=renorm)
    batch, record = ragged(5, 9, dim=4), _record(2)
    pooled = model(*batch, record)
    classwise, psi = pooled.aux["classwise"], pooled.aux["exploratory"]
    phi = pooled.aux["relevance"]
    torch.testing.assert_close(classwise[:5].sum(0), torch.ones(2, dtype=torch.float64))
    assert ((psi > 0) & (psi < 1)).all()
    assert ((phi > 0) & (phi < 1)).all()
    product = (classwise * psi)[5:]
    torch.testing.assert_close(pooled.aux["explanatory"][5:], product * phi[1])
    torch.testing.assert_close(pooled.attention[5:], product / product.sum(0) if renorm else product)
    wanted = phi[1] * (model.aggregator.head * pooled.embedding[1]).sum(1) + model.aggregator.bias
    torch.testing.assert_close(pooled.logits[1], wanted)
    sums = torch.stack([part.sum(0) for part in pooled.contributions.split([5, 9])])
    torch.testing.assert_close(sums + model.aggregator.bias, pooled.logits)


def test_with_open_filters_it_is_attention_for_each_class() -> None:
    model = _model()
    batch = ragged(5, 9, dim=4)
    record = model.aggregator.record
    with torch.no_grad():
        for layer in (record.query, record.key, record.class_query, record.class_key):
            layer.weight.zero_()
            layer.bias.fill_(10.0)
    pooled = model(*batch, _record(2))
    torch.testing.assert_close(pooled.aux["exploratory"], torch.ones_like(pooled.aux["exploratory"]))
    torch.testing.assert_close(pooled.attention, pooled.aux["classwise"])
    plain = (model.aggregator.head * pooled.embedding).sum(2) + model.aggregator.bias
    torch.testing.assert_close(pooled.logits, plain)


def test_a_record_in_which_all_is_missing_is_none() -> None:
    model = _model()
    batch, record = ragged(5, 9, dim=4), _record(2)
    missing = record.missing.clone()
    missing[0] = True
    values = record.values.clone()
    values[0] = float("nan")
    half = model(*batch, Clinical(values, missing))
    alone, whole = model(*batch), model(*batch, record)
    torch.testing.assert_close(half.logits[0], alone.logits[0])
    torch.testing.assert_close(half.logits[1], whole.logits[1])
    assert not torch.allclose(alone.logits[1], whole.logits[1])
    assert (alone.aux["exploratory"] == 1).all()
    # and a model that never had a record reads the same from the same weights
    bare = _model(factors=())
    bare.load_state_dict({name: weight for name, weight in model.state_dict().items() if ".record." not in name})
    _same(bare(*batch), alone)


def test_a_missing_factor_has_a_token_of_its_own_whatever_stands_in_its_place() -> None:
    model = _model()
    batch, record = ragged(5, 9, dim=4), _record(2)
    missing = record.missing.clone()
    missing[:, 2] = True  # one column of the second factor, which is then missing whole
    answers = []
    for value in (0.0, 7.0, float("nan")):
        values = record.values.clone()
        values[:, 2] = value
        answers.append(model(*batch, Clinical(values, missing)))
    _same(answers[0], answers[1])
    _same(answers[0], answers[2])
    with torch.no_grad():
        model.aggregator.record.missing[1, :4] += 1.0  # not all columns: a norm would not see it
    assert not torch.allclose(model(*batch, Clinical(record.values, missing)).logits, answers[0].logits)


def test_another_record_changes_the_explanatory_map_and_not_the_class_wise_one() -> None:
    model = _model()
    batch, record = ragged(5, 9, dim=4), _record(2)
    other = replace_factor(record, FACTORS, 1, torch.tensor([3.0, -1.0, 2.0]))
    assert torch.equal(other.values[:, [0, 4, 5]], record.values[:, [0, 4, 5]])
    here, there = model(*batch, record), model(*batch, other)
    assert torch.equal(here.aux["classwise"], there.aux["classwise"])
    for name in ("exploratory", "explanatory", "relevance"):
        assert not torch.allclose(here.aux[name], there.aux[name])
    gone = replace_factor(record, FACTORS, 1, None)
    assert gone.missing[0].tolist() == [False, True, True, True, False, False]
    assert not record.missing.any()


def test_order_of_tiles_and_of_factors_changes_nothing() -> None:
    model = _model()
    features, cells, offsets = ragged(9, dim=4)
    record = _record(1)
    straight = model(features, cells, offsets, record)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    shuffled = model(features[order], cells[order], offsets, record)
    torch.testing.assert_close(shuffled.logits, straight.logits)
    torch.testing.assert_close(shuffled.aux["explanatory"], straight.aux["explanatory"][order])
    turned = _model(factors=(2, 1, 3))
    turned.load_state_dict(_turned(model.state_dict(), [2, 0, 1]))
    _same(turned(features, cells, offsets, Clinical(record.values[:, [4, 5, 0, 1, 2, 3]], record.missing)), straight)


def _turned(state: dict[str, Tensor], order: list[int]) -> dict[str, Tensor]:
    """Weights with the factors in another order, their types with them."""
    turned = {}
    for name, weight in state.items():
        head, found, tail = name.partition("record.factors.")
        if found:
            number, rest = tail.split(".", 1)
            turned[f"{head}{found}{order.index(int(number))}.{rest}"] = weight
        else:
            turned[name] = weight[order] if name.endswith(("record.types", "record.missing")) else weight
    return turned


def test_a_padded_batch_with_records_is_the_ragged_one() -> None:
    model = _model()
    features, cells, offsets = ragged(5, 9, dim=4)
    record = _record(2)
    mask = torch.arange(9)[None] < torch.tensor([[5], [9]])
    rows, places = torch.full((2, 9, 4), float("nan")), torch.zeros(2, 9, 2, dtype=torch.int64)
    rows[mask], places[mask] = features, cells
    torch.testing.assert_close(
        model.padded(rows, places, mask, record).logits, model(features, cells, offsets, record).logits
    )


def test_gradients_reach_each_of_28_factors() -> None:
    model = _model(factors=(1,) * 28, record_dropout=0.0).train()
    values = torch.randn(2, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    missing = torch.zeros(2, 28, dtype=torch.bool)
    missing[0] = torch.arange(28) < 27  # each factor is missing in one bag or the other, and known in the other
    missing[1] = torch.arange(28) == 27
    model(*ragged(20, 30, dim=4), Clinical(values, missing)).logits[:, 0].sum().backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still
    assert (model.aggregator.record.missing.grad.abs().sum(1) > 0).all()


def _interaction(count: int, seed: int) -> tuple[Tensor, Tensor, Clinical, Tensor]:
    """Bags of 12 tiles: with a lesion or without, and a flag in the record; the class is the one or the other."""
    random = torch.Generator().manual_seed(seed)
    lesion, flag = torch.rand(2, count, generator=random) < 0.5
    tiles = torch.randn(count, 12, 6, generator=random)
    tiles[lesion, :3, 0] += 4
    record = Clinical(flag[:, None] * 2.0 - 1, torch.zeros(count, 1, dtype=torch.bool))
    return tiles.flatten(0, 1), torch.arange(count + 1) * 12, record, (lesion ^ flag).long()


@pytest.mark.parametrize("reads", ["both", "tiles", "record"])
def test_a_rule_that_needs_tiles_and_record_both(reads: str) -> None:
    """Exclusive or: neither says anything alone."""
    model = build_model(
        "persam", dim=6, n_out=2, factors=(1,), hidden=16, heads=2, record_dropout=0.0, dropout=0.0, seed=0
    ).train()

    def logits(batch: tuple[Tensor, Tensor, Clinical, Tensor]) -> Tensor:
        tiles, offsets, record, _ = batch
        tiles = torch.zeros_like(tiles) if reads == "record" else tiles
        return model(tiles, torch.zeros(len(tiles), 2).long(), offsets, None if reads == "tiles" else record).logits

    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(200):
        batch = _interaction(32, seed=step)
        functional.cross_entropy(logits(batch), batch[3]).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    batch = _interaction(200, seed=1000)
    right = (logits(batch).argmax(1) == batch[3]).double().mean().item()
    assert right > 0.95 if reads == "both" else abs(right - 0.5) < 0.12


def test_the_map_looks_where_the_record_asks() -> None:
    """Lesions of two kinds, and a flag that says which of them decides: setting it moves the map to the first kind."""
    model = build_model(
        "persam", dim=6, n_out=2, factors=(1,), hidden=16, heads=2, record_dropout=0.0, dropout=0.0, seed=0
    ).train()

    def batch(count: int, seed: int) -> tuple[Tensor, Tensor, Clinical, Tensor]:
        random = torch.Generator().manual_seed(seed)
        first, second, flag = torch.rand(3, count, generator=random) < 0.5
        tiles = torch.randn(count, 12, 6, generator=random)
        tiles[first, :3, 0] += 4
        tiles[second, 3:6, 1] += 4
        record = Clinical(flag[:, None] * 2.0 - 1, torch.zeros(count, 1, dtype=torch.bool))
        wanted = torch.where(flag, first, second).long()
        return tiles.flatten(0, 1), torch.arange(count + 1) * 12, record, wanted

    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(300):
        tiles, offsets, record, wanted = batch(32, seed=step)
        functional.cross_entropy(
            model(tiles, torch.zeros(len(tiles), 2).long(), offsets, record).logits, wanted
        ).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    random = torch.Generator().manual_seed(1000)
    tiles = torch.randn(50, 12, 6, generator=random)
    tiles[:, :3, 0] += 4
    tiles[:, 3:6, 1] += 4
    unset = Clinical(torch.full((50, 1), -1.0), torch.zeros(50, 1, dtype=torch.bool))
    asked, odds = [], []
    for record in (unset, replace_factor(unset, (1,), 0, torch.ones(1))):
        pooled = model(tiles.flatten(0, 1), torch.zeros(600, 2).long(), torch.arange(51) * 12, record)
        looked, shown = (pooled.aux[name][:, -1].reshape(50, 12) for name in ("exploratory", "explanatory"))
        asked.append((looked[:, :3].sum() / looked[:, :6].sum()).item())
        odds.append((shown[:, :3].sum() / shown[:, 3:6].sum()).item())
        assert (pooled.logits.argmax(1) == 1).double().mean() > 0.9
    assert asked[0] < 0.4
    assert asked[1] > 0.7
    assert odds[1] > 10 * odds[0]  # the class-wise map, which no record changes, has its own liking


@pytest.mark.parametrize("options", [{"heads": 3}, {"depth": 1}, {"record_dropout": 1.0}, {"factors": (1, 0)}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="persam"):
        build_model("persam", dim=4, n_out=2, **options)


def test_records_that_do_not_fit_are_refused() -> None:
    batch, record = ragged(5, 9, dim=4), _record(2)
    with pytest.raises(ModelError, match="built without factors"):
        _model(factors=())(*batch, record)
    with pytest.raises(ModelError, match="6 columns and the model's factors"):
        _model(factors=(1, 3))(*batch, record)
    with pytest.raises(ModelError, match="3 records for 2 bags"):
        _model()(*batch, _record(3))
    with pytest.raises(ModelError, match="does not fit factors"):
        replace_factor(record, FACTORS, 1, torch.zeros(2))
    with pytest.raises(ModelError, match="does not fit factors"):
        replace_factor(record, FACTORS, 3, None)
