"""MIL-VT: its two heads, alone and together."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import MODELS, build_model
from wsi_mil.training.run import parameter_groups


class TestMILVT(AggregatorContract):
    name = "mil_vt"
    options = {"hidden": 16, "heads": 2, "depth": 1}
    steps = 80


def _model() -> torch.nn.Module:
    return build_model("mil_vt", dim=4, n_out=3, hidden=8, heads=2).eval().double()


def test_the_logit_is_the_mean_of_two_heads() -> None:
    pooled = _model()(*ragged(5, 9, dim=4))
    by_token, by_tiles = pooled.aux["stream_logits"]
    assert not torch.allclose(by_token, by_tiles)
    torch.testing.assert_close(pooled.logits, (by_token + by_tiles) / 2)


def test_a_silent_tile_head_leaves_the_class_token_and_the_other_way_round() -> None:
    batch = ragged(5, 9, dim=4)
    for silent, speaking in ((1, 0), (0, 1)):
        model = _model()
        wanted = model(*batch).aux["stream_logits"][speaking] / 2
        head = model.aggregator.mil.out if silent else model.aggregator.class_head
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
        torch.testing.assert_close(model(*batch).logits, wanted)


def test_the_equations_of_the_tile_head() -> None:
    model = _model()
    batch = ragged(7, dim=4)
    pooled, method = model(*batch), model.aggregator
    tokens = torch.cat([method.start, method.projection(batch[0].double())])[None]
    for block in method.blocks:
        tokens = block(tokens, torch.ones(1, 8, dtype=torch.bool))
    tokens, mil = method.norm(tokens[0]), method.mil
    g = torch.nn.functional.layer_norm(tokens[1:] @ mil.value[0].weight.T + mil.value[0].bias, (8,)).relu()
    hidden = torch.nn.functional.layer_norm(g @ mil.score[0].weight.T + mil.score[0].bias, (4,)).relu()
    a = (hidden @ mil.score[4].weight[0]).softmax(0)
    torch.testing.assert_close(pooled.attention[:, 0], a)
    torch.testing.assert_close(pooled.aux["stream_logits"][1, 0], (a @ g) @ mil.out.weight.T + mil.out.bias)
    by_token = tokens[0] @ method.class_head.weight.T + method.class_head.bias
    torch.testing.assert_close(pooled.aux["stream_logits"][0, 0], by_token)


def test_the_head_over_tiles_learns_five_times_as_fast() -> None:
    model = build_model("mil_vt", dim=6, n_out=2, hidden=8, heads=2)
    slow, fast = parameter_groups(model, 2e-5)
    assert (slow["lr"], fast["lr"]) == (2e-5, pytest.approx(1e-4))
    # value: a layer and its norm; score: two layers and a norm, one of them without bias; out: a layer
    assert len(fast["params"]) == 4 + 5 + 2
    assert len(slow["params"]) + len(fast["params"]) == len(list(model.parameters()))
    fitted = {id(one) for one in fast["params"]}
    assert fitted == {id(one) for one in model.aggregator.mil.parameters()}
    (only,) = parameter_groups(build_model("abmil", dim=6, n_out=2), 1e-4)
    assert only["lr"] == 1e-4


def test_a_fast_part_that_is_not_there_is_no_silent_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS["mil_vt"], "faster", {"module.mil": 5.0})
    with pytest.raises(ModelError, match="no part"):
        parameter_groups(build_model("mil_vt", dim=6, n_out=2), 1e-4)


def test_both_heads_are_trained_and_the_mean_is_not() -> None:
    assert _model().losses == {"bag": 0.0, "streams": 1.0}


@pytest.mark.parametrize("options", [{"heads": 3}, {"depth": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="mil_vt"):
        build_model("mil_vt", dim=4, n_out=2, **options)
