"""ECG-Byte: letters and merges there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.synthetic.simulation import simulate
from heartllm.ecg.leads import LIMB_FROM_I_II
from heartllm.ecg.recording import LEADS
from heartllm.errors import CheckpointError, DataError
from heartllm.frontends.ecg_byte import EMPTY, ECGByte, ECGByteConfig, merged_strings
from heartllm.training.ecg_byte import learn_merges

EVERYTHING = ECGByteConfig(merges=40, leads=LEADS, seconds=10.0, strip="", rate=50.0, positions=6000)


def ecgs(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.stack([simulate(3, index)[0].signal for index in range(count)]))


def trained(config: ECGByteConfig = EVERYTHING) -> ECGByte:
    front_end = ECGByte(config)
    strings = [bytes(front_end.letters(one.numpy()) + 97).decode() for one in ecgs()]
    pairs = learn_merges(iter(strings), config.letters, config.merges)
    front_end.merges[: len(pairs)] = torch.from_numpy(pairs)
    return front_end


TRAINED = trained()


@given(st.lists(st.integers(0, 25), max_size=400))
def test_any_letters_come_back(letters: list[int]) -> None:
    written = np.array(letters, np.uint8)
    tokens = TRAINED.tokens(written)
    assert len(tokens) <= len(letters)
    assert TRAINED.spell(tokens).tolist() == letters
    assert TRAINED.spell([*tokens, EMPTY, EMPTY]).tolist() == letters


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=120), st.integers(0, 12))
def test_merges_are_applied_as_byte_pair_encoding_says(letters: list[str], merges: int) -> None:
    """Against the textbook: apply each learnt merge, in order, from the left."""
    pairs = learn_merges(iter(["abcabdabcd" * 3, "aabbccdd"]), 4, merges)
    front_end = ECGByte(ECGByteConfig(letters=4, merges=max(merges, 1)))
    front_end.merges[: len(pairs)] = torch.from_numpy(pairs)
    strings, named = merged_strings(4, pairs)
    parts = list(letters)
    for left, right in named:
        i = 0
        while i < len(parts) - 1:
            if (parts[i], parts[i + 1]) == (left, right):
                parts[i : i + 2] = [left + right]
            i += 1
    got = front_end.tokens(np.array([ord(letter) - 97 for letter in letters], np.uint8))
    assert [strings[token] for token in got] == parts


def test_the_round_trip_errs_by_half_a_letter() -> None:
    """At the rate of writing, inside the clipping limits, a letter's middle is at most half a letter away."""
    config = ECGByteConfig(letters=26, merges=0, leads=LEADS, seconds=10.0, strip="", rate=500.0, positions=60_000)
    front_end = ECGByte(config)
    signal = ecgs().clamp(-0.999, 0.999)
    decoded = front_end.decode(front_end.encode(signal))
    assert decoded.shape == signal.shape
    assert (decoded - signal).abs().max() <= 1 / 26 + 1e-5


def test_clipping_is_at_the_limits() -> None:
    front_end = ECGByte(EVERYTHING)
    front_end.limits.copy_(torch.tensor([-0.7, 0.8]))
    signal = torch.full((1, 12, 5000), 3.0)
    assert set(front_end.letters(signal[0].numpy()).tolist()) == {25}
    assert front_end.decode(front_end.encode(signal)).max() == pytest.approx(0.8 - 1.5 / 52, abs=1e-4)


def test_the_default_plan_is_a_printed_ecg() -> None:
    front_end = ECGByte(ECGByteConfig(merges=5))
    names = [LEADS[row] for row, _ in front_end.plan]
    assert names == ["I", "V1", "V2", "V3", "V4", "V5", "V6", "II"]
    assert [count for _, count in front_end.plan] == [125] * 7 + [500]
    index = front_end.encode(ecgs())
    assert index.shape == (2, 313)
    assert front_end.codes == 31
    assert front_end.bits == pytest.approx(313 * math.log2(31) / 10)


def test_short_ones_are_filled_and_long_ones_are_cut() -> None:
    config = ECGByteConfig(merges=20, leads=("II",), seconds=10.0, strip="", rate=25.0, positions=313)
    flat, busy = torch.zeros(1, 12, 5000), ecgs(1)
    front_end = trained(config)
    index = front_end.encode(torch.cat([flat, busy]))
    used = (index != EMPTY).sum(1)
    assert 0 < used.min() < used.max() <= 313
    for row, count in zip(index, used, strict=True):
        assert (row[count:] == EMPTY).all()
    tokens = front_end.tokens(front_end.letters(busy[0].numpy()))
    short = ECGByte(ECGByteConfig(merges=20, leads=("II",), seconds=10.0, strip="", rate=25.0, positions=20))
    short.load_state_dict(front_end.state_dict())
    assert short.encode(busy)[0].tolist() == tokens[:20]


def test_limb_leads_follow_from_two_and_the_rest_is_zero() -> None:
    config = ECGByteConfig(merges=0, leads=("I",), seconds=2.5, strip="II", rate=50.0, positions=10_000)
    front_end = ECGByte(config)
    decoded = front_end.decode(front_end.encode(ecgs(1)))[0].numpy()
    np.testing.assert_allclose(decoded[:6, :1250], LIMB_FROM_I_II @ decoded[:2, :1250], atol=1e-6)
    assert (decoded[6:] == 0).all()
    assert (decoded[2, 1250:] == 0).all()
    assert (decoded[1, 1250:] != 0).mean() > 0.9


def test_it_is_kept_as_weights() -> None:
    other = ECGByte(EVERYTHING)
    signal = ecgs(1)
    before = other.encode(signal)
    other.load_state_dict(TRAINED.state_dict())
    after = other.encode(signal)
    assert torch.equal(after, TRAINED.encode(signal))
    assert (after != EMPTY).sum() < (before != EMPTY).sum()


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        TRAINED.encode(torch.full((1, 12, 5000), float("nan")))
    with pytest.raises(CheckpointError, match="none of its"):
        TRAINED.spell([99])
    with pytest.raises(CheckpointError, match="not there yet"):
        merged_strings(3, np.array([[0, 7]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"letters": 27},
        {"low": 99.0},
        {"rate": 0.0},
        {"leads": ("I", "I")},
        {"leads": ("X",)},
        {"leads": (), "strip": ""},
    ],
)
def test_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        ECGByteConfig(**wrong)  # type: ignore[arg-type]
