"""DSMIL: both streams against their formulas."""

from __future__ import annotations

import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.models import build_model


class TestDSMIL(AggregatorContract):
    name = "dsmil"
    options = {"hidden": 32, "width": 16}


def test_the_equations() -> None:
    model = build_model("dsmil", dim=4, n_out=2, hidden=8, width=5).eval().double()
    features, cells, offsets = ragged(3, 9, dim=4)
    pooled, method = model(features, cells, offsets), model.aggregator
    h = method.projection(features.double())[3:]
    s, q, v = method.instance(h), method.query(h), method.value(h)
    bag = method.head.bias.clone()
    for c in range(2):
        e = q @ q[s[:, c].argmax()] / 5**0.5
        a = e.softmax(0)
        torch.testing.assert_close(pooled.attention[3:, c], a)
        bag = bag + method.head.weight[:, c] @ (a @ v)
    torch.testing.assert_close(pooled.logits[1], (s.max(0).values + bag) / 2)
    torch.testing.assert_close(pooled.aux["stream_logits"][1, 1], bag)
