"""Finding lesions: small cases by hand, and FROC against its definition written out."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_mil.evaluation import RATES, Found, detections, dice_at, froc, lesions, pointing


def test_pointing() -> None:
    positive = np.array([True, False, False])
    assert pointing(positive, np.array([3.0, 1.0, 2.0])) == 1
    assert pointing(positive, np.array([1.0, 1.0, 2.0])) == 0
    assert pointing(positive, np.array([2.0, 2.0, 1.0])) == 0.5


def test_dice_at_a_fixed_area() -> None:
    positive = np.arange(20) < 4
    assert dice_at(positive, -np.arange(20.0), share=0.2) == 1
    assert dice_at(positive, -np.arange(20.0), share=0.1) == pytest.approx(2 * 2 / (2 + 4))
    assert dice_at(positive, np.arange(20.0), share=0.2) == 0
    # all alike: four of twenty are marked by chance
    assert dice_at(positive, np.zeros(20), share=0.2) == pytest.approx(0.2)


def test_lesions_are_pieces_that_touch() -> None:
    cells = np.array([[5, 5], [6, 6], [7, 5], [9, 5], [9, 6]])
    assert lesions(cells, np.array([True, True, False, True, True])).tolist() == [1, 1, 0, 2, 2]
    assert not lesions(cells, np.zeros(5, dtype=bool)).any()


def test_detections_keep_their_distance() -> None:
    cells = np.array([[x, 0] for x in range(6)])
    assert detections(cells, np.array([1.0, 5.0, 4.0, 3.0, 0.0, 2.0])).tolist() == [1, 3, 5]
    assert detections(cells, np.arange(6.0), radius=9).tolist() == [5]


def test_froc_by_hand() -> None:
    first = Found(np.array([0.9, 0.8, 0.7, 0.2]), np.array([1, 0, 1, 2]), 2)
    second = Found(np.array([0.6, 0.1]), np.array([0, 0]), 1)
    # threshold: (false positives a slide, sensitivity) .9: (0, 1/3) .8: (.5, 1/3) .6: (1, 1/3) .2: (1, 2/3) .1: 1.5
    told = froc([first, second])
    assert told is not None
    np.testing.assert_allclose(told.sensitivities, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert told.score == pytest.approx(5 / 9)
    assert froc([Found(np.array([0.5]), np.array([0]), 0)]) is None


def test_froc_against_its_definition() -> None:
    random = np.random.default_rng(0)
    slides = [
        Found(random.random(60).round(2), random.integers(0, 6, 60) * (random.random(60) < 0.1), 5) for _ in "abc"
    ]
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([slide.confidences for slide in slides]))[::-1]:
        above = [slide.lesion[slide.confidences >= threshold] for slide in slides]
        hit = sum(len(set(one[one > 0])) for one in above)
        points.append((sum((one == 0).sum() for one in above) / 3, hit / 15))
    rates = np.array([rate for rate, _ in points])
    best = {rate: max(hit for other, hit in points if other == rate) for rate in rates}
    wanted = np.interp(RATES, list(best), list(best.values()))
    told = froc(slides)
    assert told is not None
    np.testing.assert_allclose(told.sensitivities, wanted)
