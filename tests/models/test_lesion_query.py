"""Lesion-aware queries: each for itself, their order, and three patterns that are found from labels of slides."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.evaluation import tile_ap
from wsi_mil.models import build_model
from wsi_mil.tasks import Classification
from wsi_mil.training import Auxiliary, Step


class TestLesionQuery(AggregatorContract):
    name = "lesion_query"
    options = {"hidden": 32, "lesions": 4}


def _model(**options: object) -> torch.nn.Module:
    return build_model("lesion_query", dim=4, n_out=3, hidden=8, **options).eval().double()


def test_one_query_is_attention_with_a_linear_scorer() -> None:
    model = _model(lesions=1)
    batch = ragged(3, 9, dim=4)
    pooled, method = model(*batch), model.aggregator
    h = method.projection(batch[0].double())[3:]
    a = (h @ method.lesions[0] / 8**0.5).softmax(0)
    torch.testing.assert_close(pooled.attention[3:, 0], a)
    torch.testing.assert_close(pooled.logits[1], method.head(a @ h))
    step = Step(pooled, torch.tensor([0, 1]), batch[2], Classification(classes=("a", "b", "c")), [0, 1], 0.5)
    assert abs(Auxiliary({"bag": 0.0, "diversity": 1.0, "separation": 1.0})(torch.tensor(0.0), step)) < 1e-12


def test_the_equations_of_importance() -> None:
    model = _model(lesions=3)
    batch = ragged(9, dim=4)
    pooled, method = model(*batch), model.aggregator
    found = pooled.attention.T @ method.projection(batch[0].double())
    importance = (found @ method.importance.weight[0]).softmax(0)
    torch.testing.assert_close(pooled.aux["importance"][0], importance)
    torch.testing.assert_close(pooled.logits[0], method.head(importance @ found))


def test_order_of_queries_changes_no_logit() -> None:
    model = _model(lesions=3)
    batch = ragged(9, dim=4)
    before = model(*batch)
    with torch.no_grad():
        model.aggregator.lesions.copy_(model.aggregator.lesions[[2, 0, 1]].clone())
    after = model(*batch)
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.scores, before.scores[:, [2, 0, 1]])
    torch.testing.assert_close(after.aux["importance"], before.aux["importance"][:, [2, 0, 1]])


def _three(count: int, seed: int) -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Bags of noise with three patterns, each there or not: tiles, which are there, witnesses of each."""
    random = torch.Generator().manual_seed(seed)
    bags, there, witnesses = [], torch.rand(count, 3, generator=random) < 0.5, []
    for row in there:
        witness = torch.zeros(60, 3, dtype=torch.bool)
        for pattern in range(3):
            witness[4 * pattern : 4 * pattern + 4, pattern] = row[pattern]
        tiles = torch.randn(60, 8, generator=random)
        tiles[:, :3] += 4.0 * witness
        bags.append(tiles)
        witnesses.append(witness)
    return bags, there, witnesses


def test_three_patterns_are_found_by_three_queries() -> None:
    """From labels of slides alone; the queries are matched to the patterns by the best of all orders."""
    model = build_model("lesion_query", dim=8, n_out=3, hidden=32, lesions=6, seed=0, dropout=0.0).train()
    bags, there, _ = _three(384, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    cells, offsets = torch.zeros(960, 2, dtype=torch.int64), torch.arange(17) * 60
    task = Classification(classes=("a", "b", "c"))
    for step in range(240):
        some = [(16 * step + number) % 384 for number in range(16)]
        pooled = model(torch.cat([bags[bag] for bag in some]), cells, offsets)
        loss = functional.binary_cross_entropy_with_logits(pooled.logits, there[some].float())
        auxiliary = Auxiliary(model.losses)
        auxiliary(loss, Step(pooled, there[some], offsets, task, some, 0.5)).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    bags, there, witnesses = _three(48, seed=1)
    whole = [bag for bag, row in zip(bags, there, strict=True) if row.all()]
    marked = [mark for mark, row in zip(witnesses, there, strict=True) if row.all()]
    assert len(whole) > 3
    lengths = torch.arange(len(whole) + 1) * 60
    scores = model(torch.cat(whole), torch.zeros(len(whole) * 60, 2, dtype=torch.int64), lengths).scores
    ranks = [
        [
            [tile_ap(mark[:, pattern].numpy(), part[:, query].numpy()) for query in range(6)]
            for mark, part in zip(marked, scores.detach().split(60), strict=True)
        ]
        for pattern in range(3)
    ]
    found = np.array(ranks).mean(axis=1)  #                                               pattern query
    best = max(found[range(3), order].min() for order in permutations(range(6), 3))
    assert best > 0.8, found


def test_bad_options_are_refused() -> None:
    with pytest.raises(ModelError, match="lesion_query"):
        build_model("lesion_query", dim=4, n_out=2, lesions=0)
