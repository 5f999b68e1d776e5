"""Probes: AUC against scikit-learn, what a probe learns, and intervals by patient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from heartllm.training.probe import (
    DigitStem,
    ProbeSettings,
    WaveformStem,
    auc,
    bootstrap_difference,
    macro_auc,
    predict,
    train_probe,
)

SMALL = ProbeSettings(steps=120, batch=16, learning_rate=5e-3, width=16, dropout=0.0, evaluate_every=40)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60))
def test_auc_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([a for a, _ in pairs], float), np.array([b for _, b in pairs])
    assume(0 < truth.sum() < len(truth))
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_macro_auc_is_scikit_learns_and_skips_what_has_one_class() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((80, 4)) < [0.1, 0.3, 0.5, 0.2]
    scores = truth + rng.normal(0, 1.0, truth.shape)
    assert macro_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores, average="macro"), abs=1e-12)
    truth[:, 2] = True
    kept = [0, 1, 3]
    assert math.isnan(auc(scores[:, 2], truth[:, 2]))
    assert macro_auc(scores, truth) == pytest.approx(roc_auc_score(truth[:, kept], scores[:, kept]), abs=1e-12)


def codes_with_finding(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Codes (R, 40) of levels (6, 6), and two findings: the second digit reaches 5 in four places; nothing at all."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 2)) < 0.5
    second = rng.integers(0, 5, (count, 40))
    for row in np.flatnonzero(truth[:, 0]):
        second[row, rng.choice(40, 4, replace=False)] = 5
    return torch.from_numpy(rng.integers(0, 6, (count, 40)) + 6 * second), truth


def test_probe_reads_a_digit_wherever_it_stands() -> None:
    codes, truth = codes_with_finding(240, 0)
    valid, valid_truth = codes_with_finding(120, 1)
    steps: list[int] = []
    probe = train_probe(
        DigitStem((6, 6), SMALL.width),
        lambda rows, rng: codes[rows],
        truth,
        valid,
        valid_truth,
        SMALL,
        steps.append,
    )
    scores = predict(probe, valid, batch=50)
    assert scores.shape == (120, 2)
    assert auc(scores[:, 0], valid_truth[:, 0]) > 0.95
    assert abs(auc(scores[:, 1], valid_truth[:, 1]) - 0.5) < 0.2
    assert steps == list(range(1, 121))
    assert not probe.training
    np.testing.assert_allclose(scores, predict(probe, valid, batch=7), atol=1e-5)


def test_probe_is_seeded() -> None:
    codes, truth = codes_with_finding(60, 0)
    settings = ProbeSettings(steps=6, batch=8, width=8, evaluate_every=3)

    def scores(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        stem = DigitStem((6, 6), 8)
        return predict(train_probe(stem, lambda rows, rng: codes[rows], truth, codes, truth, settings), codes)

    assert np.array_equal(scores(1), scores(1))
    assert not np.array_equal(scores(1), scores(2))


def test_digit_stem_is_a_sum_of_digit_rows() -> None:
    stem = DigitStem((6, 5, 4), 7)
    code = 3 + 6 * 2 + 30 * 1
    rows = stem.linear.weight.T
    expected = rows[3] + rows[6 + 2] + rows[6 + 5 + 1] + stem.linear.bias
    torch.testing.assert_close(stem(torch.tensor([[code]]))[0, :, 0], expected)


def test_waveform_stem_runs_at_code_rate() -> None:
    assert WaveformStem(8)(torch.zeros(2, 12, 5000)).shape == (2, 8, 313)


def test_interval_by_patient() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((120, 2)) < 0.4
    good, poor = truth + rng.normal(0, 0.5, truth.shape), truth + rng.normal(0, 3.0, truth.shape)
    patients = [f"p{i // 2}" for i in range(120)]
    low, high = bootstrap_difference(good, poor, truth, patients, resamples=200)
    assert 0 < low < macro_auc(good, truth) - macro_auc(poor, truth) < high
    assert bootstrap_difference(good, good, truth, patients, resamples=20) == (0.0, 0.0)
    assert bootstrap_difference(good, poor, truth, patients, resamples=50) == bootstrap_difference(
        good, poor, truth, patients, resamples=50
    )
    # Every recording twice, as its own patient, narrows the interval; as the same patient it must not.
    twice = [np.concatenate([x, x]) for x in (good, poor, truth)]
    same = bootstrap_difference(*twice, patients * 2, resamples=200)
    assert same == pytest.approx((low, high), abs=1e-9)
