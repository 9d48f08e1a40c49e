"""Bags that hold the same tiles are found; bags that are only alike are not."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_mil.evaluation import SAME_BAG, near_pairs, share_found, shared_patients, signature


def _bag(seed: int, tiles: int = 600, dim: int = 24) -> np.ndarray:
    random = np.random.default_rng(seed)
    kinds = np.random.default_rng(99).normal(size=(4, dim))  # the tissues of every slide
    return (kinds[random.integers(4, size=tiles)] + random.normal(size=(tiles, dim))).astype(np.float32)


CHANGES = {
    "the same": lambda bag: bag,
    "half precision": lambda bag: bag.astype(np.float16),
    "another order": lambda bag: np.random.default_rng(1).permutation(bag),
    "a little noise": lambda bag: bag * (1 + 0.005 * np.random.default_rng(1).normal(size=bag.shape)).astype("f4"),
    "cropped": lambda bag: bag[:450],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_slide_saved_again_is_found(change: str) -> None:
    one, other = _bag(0), CHANGES[change](_bag(0))
    pairs = near_pairs(
        {"a": signature(one)}, {**{f"n{n}": signature(_bag(n)) for n in range(1, 9)}, "b": signature(other)}
    )
    assert ("a", "b") in pairs
    assert share_found(one, other) >= SAME_BAG


@pytest.mark.parametrize("cut", [slice(150, None), slice(0, 450), slice(0, 300), slice(None, None, 2)])
def test_a_bag_cut_down_is_found_from_either_side(cut: slice) -> None:
    whole = _bag(0)
    assert share_found(whole, whole[cut]) == share_found(whole[cut], whole) >= SAME_BAG


def test_slides_of_like_tissue_are_not_taken_for_one_another() -> None:
    assert near_pairs({"a": signature(_bag(0))}, {"b": signature(_bag(1) + 3)}) == []
    assert share_found(_bag(0), _bag(1)) < 0.05


def test_empty_glass_alone_does_not_make_twins() -> None:
    glass = np.zeros((4000, 24), dtype=np.float32)
    one, other = np.concatenate([_bag(0, 300), glass]), np.concatenate([_bag(1, 300), glass])
    assert share_found(one, other) < 0.1


def test_patients_on_two_sides() -> None:
    patients = {"a": "p", "b": "p", "c": "q", "d": "r"}
    found = shared_patients({"fit": ["a", "d"], "select": ["c"], "test": ["b", "c"]}, patients)
    assert found == {"p": ["fit", "test"], "q": ["select", "test"]}
    assert near_pairs({}, {"a": signature(_bag(0))}) == []
