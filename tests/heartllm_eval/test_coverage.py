"""Coverage of a marked part by a map, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval.coverage import auc, coverage, shifted_coverage, top_weights

maps = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        np.random.default_rng(seed).integers(0, 6, 30).astype(float),
        np.random.default_rng(seed + 1).random(30) < 0.3,
    )
)


@given(maps)
def test_auc_counts_pairs(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, mask = drawn
    if not 0 < mask.sum() < 30:
        return
    pairs = scores[mask][:, None] - scores[~mask][None]
    assert auc(scores, mask) == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


@given(maps)
def test_coverage_is_the_mean_over_ways_to_break_ties(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, mask = drawn
    if not 0 < mask.sum() < 30:
        return
    result = coverage(scores, mask, 0.2)
    random = np.random.default_rng(0)
    tops = [np.lexsort((random.random(30), -scores))[:6] for _ in range(3000)]
    found = [mask[top].sum() for top in tops]
    assert result.covered == pytest.approx(np.mean(found) / mask.sum(), abs=0.05)
    assert result.precision == pytest.approx(result.covered * mask.sum() / 6)
    assert result.ceiling == min(1, 6 / mask.sum())


@given(maps)
def test_shifts_by_hand_and_their_mean_is_chance(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, mask = drawn
    if not 0 < mask.sum() < 30:
        return
    weights = top_weights(scores, 6)
    assert weights.sum() == pytest.approx(6)
    by_hand = [weights[np.roll(mask, shift)].sum() / mask.sum() for shift in range(30)]
    np.testing.assert_allclose(shifted_coverage(weights, mask), by_hand[1:], atol=1e-8)
    assert np.mean(by_hand) == pytest.approx(0.2)


def test_a_perfect_map_and_its_opposite() -> None:
    mask = np.zeros(50, bool)
    mask[10:20] = True
    best, worst = coverage(mask.astype(float), mask), coverage(-mask.astype(float), mask)
    assert (best.covered, best.precision, best.auc) == (1.0, 1.0, 1.0)
    assert best.shift_rank > 0.95
    assert (worst.covered, worst.auc) == (0.0, 0.0)
    flat = coverage(np.zeros(50), mask)
    assert (flat.covered, flat.auc) == (pytest.approx(0.2), 0.5)


@pytest.mark.parametrize(
    ("scores", "mask"),
    [
        (np.zeros(4), np.zeros(4, bool)),
        (np.zeros(4), np.ones(4, bool)),
        (np.zeros(3), np.array([True, False])),
        (np.array([np.nan, 1.0]), np.array([True, False])),
    ],
)
def test_what_cannot_be_covered_is_refused(scores: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="coverage"):
        coverage(scores, mask)
