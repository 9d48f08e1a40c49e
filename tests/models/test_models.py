"""Every method keeps the contract; the table is complete; names and options are checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged
from jaxtyping import TypeCheckError
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models import ABMIL, MODELS, Aggregator, Pooled, build_model


class TestABMIL(AggregatorContract):
    name = "abmil"
    options = {"hidden": 32, "attention": 16}


class TestABMILHeads(AggregatorContract):
    name = "abmil"
    options = {"hidden": 32, "attention": 16, "heads": 2, "gated": False}


class TestABMILClassHeads(AggregatorContract):
    name = "abmil"
    options = {"hidden": 32, "attention": 16, "heads": "class"}


class TestMean(AggregatorContract):
    name = "mean"
    options = {"hidden": 32}


class TestMax(AggregatorContract):
    name = "max"
    options = {"hidden": 32}


def test_every_row_of_the_table_keeps_the_contract() -> None:
    """Each method's contract class stands in a file of this folder."""
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert set(re.findall(r'^    name = "(\w+)"$', texts, flags=re.MULTILINE)) == set(MODELS)


def test_unknown_names_are_suggested() -> None:
    with pytest.raises(ModelError, match="unknown model 'abmill': did you mean 'abmil'"):
        build_model("abmill", dim=4, n_out=2)
    with pytest.raises(ModelError, match="'atention': did you mean 'attention'"):
        build_model("abmil", dim=4, n_out=2, atention=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 0}, "heads is 0"), ({"dropout": 1.5}, "cannot be built"), ({"hidden": -1}, "cannot be built")],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_model("abmil", dim=4, n_out=2, **options)


@pytest.mark.parametrize(("dim", "n_out"), [(0, 2), (4, 0)])
def test_bad_sizes_are_refused(dim: int, n_out: int) -> None:
    with pytest.raises(ModelError, match="one feature and one output"):
        build_model("abmil", dim=dim, n_out=n_out)


def test_a_clinical_record_is_refused_where_no_method_reads_it() -> None:
    with pytest.raises(ModelError, match="set fusion to concat, gated or film"):
        build_model("abmil", dim=4, n_out=2, factors=(1, 3))


def test_building_leaves_the_global_random_state() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    build_model("abmil", dim=4, n_out=2, seed=3)
    assert torch.equal(torch.rand(3), wanted)


def test_a_class_of_ones_own_is_a_model() -> None:
    model = build_model(ABMIL, dim=4, n_out=2, hidden=8)
    assert model.spec.name == "wsi_mil.models.abmil.ABMIL"
    assert model(*ragged(3, 4, dim=4)).logits.shape == (2, 2)


def test_standardisation_is_part_of_the_state() -> None:
    model = build_model("abmil", dim=3, n_out=2).eval()
    mean, scale = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.1, 1.0])
    features, cells, offsets = ragged(6, dim=3)
    wanted = model(((features - mean) / scale).clamp(-5, 5), cells, offsets).logits
    model.standardise(mean, scale)
    again = build_model("abmil", dim=3, n_out=2, seed=5).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(features, cells, offsets).logits, wanted)
    with pytest.raises(ModelError, match="scale of the features is zero"):
        model.standardise(mean, torch.zeros(3))


class Echo(Aggregator):
    """Gives back where each tile lies: column and row as its two scores."""

    weights, exact_contributions, spatial, own_logits = "none", False, True, True
    use, paper, cost, queries, embedding_dim = "never", "none", "O(N)", ("column", "row"), 1

    def __init__(self, dim: int, n_out: int) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(n_out))

    def pool(self, features: Tensor, cells: Tensor, offsets: Tensor, clinical: object = None) -> Pooled:
        bags = len(offsets) - 1
        return Pooled(torch.zeros(bags, 2, 1), cells * 1.0, None, self.one.expand(bags, -1), None, {})


def test_padding_keeps_each_tile_in_its_place() -> None:
    model = build_model(Echo, dim=3, n_out=2)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    cells = torch.arange(12).reshape(2, 3, 2)
    padded = model.padded(torch.zeros(2, 3, 3), cells, mask)
    assert torch.equal(padded.scores[mask], cells[mask] * 1.0)
    assert padded.scores.shape == (2, 3, 2)


def test_one_odd_tile_is_no_odder_than_five_spreads() -> None:
    model = build_model("abmil", dim=3, n_out=2).eval()
    features, cells, offsets = ragged(6, dim=3)
    features[2] = 20.0
    raw = model(features, cells, offsets).logits
    model.standardise(torch.zeros(3), torch.ones(3))
    cut = model(features, cells, offsets).logits
    assert not torch.allclose(cut, raw)
    features[2] = 1e6
    torch.testing.assert_close(model(features, cells, offsets).logits, cut)


def test_a_head_for_each_class_sees_its_own_query_alone() -> None:
    model = build_model("abmil", dim=4, n_out=3, heads="class").eval()
    batch = ragged(7, dim=4)
    before = model(*batch)
    with torch.no_grad():
        model.aggregator.attention.score.weight[2] += 1.0
    after = model(*batch)
    assert torch.equal(after.logits[:, :2], before.logits[:, :2])
    assert not torch.equal(after.logits[:, 2], before.logits[:, 2])


@pytest.mark.parametrize(
    ("offsets", "cells", "message"),
    [
        ([0, 3], 4, "do not run"),
        ([1, 4], 4, "do not run"),
        ([0], 4, "do not run"),
        ([0, 4], 3, "each tile needs both|i64.3,2."),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(offsets: list[int], cells: int, message: str) -> None:
    model = build_model("abmil", dim=4, n_out=2)
    places = torch.zeros(cells, 2, dtype=torch.int64)
    with pytest.raises((ModelError, TypeCheckError), match=message):
        model(torch.zeros(4, 4), places, torch.tensor(offsets))
