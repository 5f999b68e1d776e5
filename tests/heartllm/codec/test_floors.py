"""The classical floors: transforms against other people's, bits against a coder that runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from heartllm.codec.floors import (
    LEAST,
    STEP_BITS,
    TransformCoder,
    blocks_of,
    fit_fixed_rate,
    fit_transform,
    low_pass,
    signal_of,
)
from heartllm.data.synthetic.simulation import simulate
from heartllm.errors import DataError, UsageError

BLOCK = 20
SIGNALS = [simulate(4, index)[0].signal[:, :3000].astype(np.float64) for index in range(6)]
CODERS = {kind: fit_transform(kind, SIGNALS[:5], BLOCK) for kind in ("dct", "pca")}  # type: ignore[arg-type]


@given(st.integers(1, 300), st.integers(1, 40))
def test_blocks_come_back(samples: int, block: int) -> None:
    signal = np.random.default_rng(samples).normal(size=(12, samples))
    blocks = blocks_of(signal, block)
    assert blocks.shape == (math.ceil(samples / block), 12 * block)
    np.testing.assert_array_equal(signal_of(blocks, block, samples), signal)


@pytest.mark.parametrize("kind", CODERS)
def test_a_small_step_loses_nothing(kind: str) -> None:
    coder = CODERS[kind]
    np.testing.assert_allclose(coder.axes @ coder.axes.T, np.eye(12 * BLOCK), atol=1e-9)
    compressed = coder.compress(SIGNALS[5], 1e9)
    assert compressed.step == pytest.approx(LEAST, rel=1e-3)
    np.testing.assert_allclose(coder.expand(compressed), SIGNALS[5], atol=40 * LEAST)


def test_dct_is_scipys_over_decorrelated_leads() -> None:
    coder = CODERS["dct"]
    block = SIGNALS[5][:, :BLOCK]
    every = np.concatenate(SIGNALS[:5], axis=1)
    values, vectors = np.linalg.eigh(every @ every.T)
    leads = vectors.T[::-1]
    expected = dct(leads @ block, axis=1, norm="ortho").ravel()
    got = blocks_of(block, BLOCK)[0] @ coder.axes.T
    strong = np.repeat(values[::-1] > 1e-3 * values.max(), BLOCK)
    np.testing.assert_allclose(np.abs(got[strong]), np.abs(expected[strong]), atol=1e-6)


def test_pca_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    rows = np.concatenate([blocks_of(signal, BLOCK) for signal in SIGNALS[:5]])
    reference = PCA(n_components=5, svd_solver="full").fit(rows)
    assert np.abs(np.sum(CODERS["pca"].axes[:5] * reference.components_, axis=1)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", CODERS)
def test_the_budget_is_met_and_more_bits_are_better(kind: str) -> None:
    coder, errors = CODERS[kind], []
    noisy = SIGNALS[5] + np.random.default_rng(0).normal(scale=0.1, size=SIGNALS[5].shape)
    for bits in (1500.0, 3000.0, 6000.0):
        for signal in (SIGNALS[5], noisy):
            compressed = coder.compress(signal, bits)
            assert 0.9 * bits < compressed.bits <= bits
            assert compressed.bits == pytest.approx(coder.bits(compressed.levels, compressed.step))
        errors.append(float(np.sqrt(np.mean((coder.expand(coder.compress(SIGNALS[5], bits)) - SIGNALS[5]) ** 2))))
    assert errors[0] > errors[1] > errors[2]


def test_probabilities_add_up() -> None:
    coder, column = CODERS["pca"], 3
    levels = np.arange(-400, 401)
    assert coder.probability(levels, np.full(801, column), 0.05).sum() == pytest.approx(1, abs=1e-6)


def _frequencies(coder: TransformCoder, column: int, step: float, reach: int) -> list[int]:
    """Whole frequencies of the levels -reach..reach that add up to at most 2^24, none of them 0."""
    share = coder.probability(np.arange(-reach, reach + 1), np.full(2 * reach + 1, column), step)
    return [max(1, int(part * (2**24 - 4 * reach - 4))) for part in share]


def test_an_arithmetic_coder_needs_no_more_than_is_counted() -> None:
    """Exact arithmetic coding in whole numbers, there and back, on a piece of a recording."""
    coder, bits = CODERS["dct"], 700.0
    compressed = coder.compress(SIGNALS[5][:, : 4 * BLOCK], bits)
    reach = int(np.abs(compressed.levels).max())
    tables = [_frequencies(coder, column, compressed.step, reach) for column in range(12 * BLOCK)]
    sent = [(column, int(level) + reach) for row in compressed.levels for column, level in enumerate(row)]
    low, width = 0, 1
    for column, symbol in sent:
        low, width = (low << 24) + width * sum(tables[column][:symbol]), width * tables[column][symbol]
    whole = 24 * len(sent)
    length = whole - width.bit_length() + 2
    code = (low >> (whole - length)) + 1  # the first multiple of 2^-length inside the interval
    assert low <= code << (whole - length) < low + width
    assert length <= compressed.bits - STEP_BITS + 3

    value, low, width = code << (whole - length), 0, 1
    for place, (column, symbol) in enumerate(sent):
        low, rest = low << 24, whole - 24 * (place + 1)
        starts = [low + width * below for below in np.cumsum([0, *tables[column][:-1]]).tolist()]
        found = max(i for i, start in enumerate(starts) if start <= value >> rest)
        assert found == symbol
        low, width = starts[found], width * tables[column][found]


def test_the_linear_twin_has_the_codecs_rate() -> None:
    twin = fit_fixed_rate((6, 6, 6, 6), SIGNALS[:5], 16)
    assert twin.bits_per_second == pytest.approx(math.log2(1296) * 500 / 16)
    digits = twin.digits(SIGNALS[5])
    assert digits.shape == (math.ceil(3000 / 16), 4)
    assert digits.min() >= 0
    assert digits.max() <= 5
    copy = twin.expand(digits, 3000)
    np.testing.assert_array_equal(twin.digits(np.pad(copy, ((0, 0), (0, 8)), mode="edge"))[:-1], digits[:-1])
    assert np.mean((copy - SIGNALS[5]) ** 2) < 0.8 * np.mean((SIGNALS[5] - SIGNALS[5].mean(1, keepdims=True)) ** 2)


def test_low_pass_keeps_low_and_drops_high_without_delay() -> None:
    time = np.arange(5000) / 500
    slow, fast = (np.tile(np.sin(2 * np.pi * hertz * time), (12, 1)) for hertz in (5, 120))
    inner = slice(500, -500)
    np.testing.assert_allclose(low_pass(slow, 40)[:, inner], slow[:, inner], atol=1e-3)
    assert np.abs(low_pass(fast, 40)[:, inner]).max() < 1e-3


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="cutoff"):
        low_pass(SIGNALS[0], 250)
    with pytest.raises(UsageError, match="too few"):
        CODERS["dct"].compress(SIGNALS[0], 3)
    empty: list[Any] = []
    with pytest.raises(DataError, match="no recordings"):
        fit_transform("dct", empty)
    with pytest.raises(DataError, match="no recordings"):
        fit_fixed_rate((6,), empty)
    with pytest.raises(DataError, match="too few"):
        fit_transform("pca", SIGNALS[:1], 500)
