"""Known and unknown slides are told apart under the same models, fold by fold."""

from __future__ import annotations

import pandas as pd
import pytest

from wsi_mil.stages.leave_out import _mean_over_folds


def test_folds_are_scored_apart_and_averaged() -> None:
    """Each fold tells them apart, but one fold's limits lie higher: pooled, or by the mean of both, it would not."""
    known = pd.DataFrame(
        {"slide": ["a", "b", "c", "d"], "decision": ["x", "y", "x", "y"], "label": ["x", "x", "x", "y"]}
    )
    unknown = pd.DataFrame({"slide": ["u", "v"]})
    novelty = {
        (0, 0): pd.Series({"a": 0.0, "b": 1.0, "u": 2.0, "v": 3.0}),
        (0, 1): pd.Series({"c": 10.0, "d": 12.0, "u": 13.0, "v": 11.0}),
    }
    told = _mean_over_folds(known, unknown, novelty)
    assert told["auroc"] == pytest.approx((1.0 + 0.75) / 2)
    assert told["fpr_at_95"] == pytest.approx((0.0 + 0.5) / 2)
    # OSCR: fold 0 answers one of two rightly before any unknown; fold 1 one, and the other beside half of the unknown
    assert told["oscr"] == pytest.approx((0.5 + 0.75) / 2)
    assert (told["known"], told["unknown"]) == (4, 2)
    del novelty[0, 1]
    assert _mean_over_folds(known, unknown, novelty)["auroc"] == 1
