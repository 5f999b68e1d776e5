"""Beats of one recording at the beat times of another."""

from __future__ import annotations

import numpy as np
import pytest

from heartllm.data.synthetic import simulate
from heartllm.ecg.transplant import blend, rooms, transplant
from heartllm.ecg.waves import find_beats


def test_rooms_fill_the_recording() -> None:
    found = rooms(np.array([400, 900, 1500]), 2000)
    assert found.tolist() == [[0, 700], [700, 1260], [1260, 2000]]
    assert rooms(np.zeros(0, np.int64), 2000).shape == (0, 2)


def test_the_beats_come_where_they_were_and_look_like_the_donors() -> None:
    (own, truth), (donor, other) = simulate(1, 0), simulate(1, 3)
    beats = (truth.onsets * 500).astype(np.int64)
    theirs = (other.onsets * 500).astype(np.int64)
    moved = transplant(beats, donor.signal, theirs, np.random.default_rng(0))
    assert moved.shape == own.signal.shape
    assert np.isfinite(moved).all()
    pairs = [np.abs(find_beats(moved.astype(float)) - (beat + 20)).min() for beat in beats[1:-1]]
    assert max(pairs) <= 25  # 50 ms: another QRS peaks elsewhere
    typical = np.median([donor.signal[:, t - 50 : t + 200] for t in theirs[1:-1]], axis=0)
    laid = np.median([moved[:, t - 50 : t + 200] for t in beats[1:-1]], axis=0)
    assert np.corrcoef(typical.ravel(), laid.ravel())[0, 1] > 0.97


def test_a_recording_at_its_own_beats_is_much_like_itself() -> None:
    recording, truth = simulate(1, 0)
    beats = (truth.onsets * 500).astype(np.int64)
    moved = transplant(beats, recording.signal, beats, np.random.default_rng(0))
    inner = slice(beats[1], beats[-2])
    assert np.corrcoef(moved[:, inner].ravel(), recording.signal[:, inner].ravel())[0, 1] > 0.9
    flat = transplant(beats, np.ones((12, 5000), np.float32), beats, np.random.default_rng(0))
    np.testing.assert_allclose(flat, 1, atol=1e-5)  # the joins neither lift nor sink
    assert np.array_equal(transplant(beats[:0], recording.signal, beats, np.random.default_rng(0)), recording.signal)


@pytest.mark.parametrize(("first", "last"), [(1000, 2000), (0, 2000), (3000, 5000), (0, 5000)])
def test_blending_touches_its_window_and_leads_only(first: int, last: int) -> None:
    leads = np.arange(12) < 3
    mixed = blend(np.zeros((12, 5000), np.float32), np.ones((12, 5000), np.float32), leads, first, last)
    assert not mixed[3:].any()
    inside = slice(first if first == 0 else first + 10, last if last == 5000 else last - 10)
    np.testing.assert_allclose(mixed[:3, inside], 1)
    outside = np.r_[0 : max(0, first - 10), min(5000, last + 10) : 5000]
    assert not mixed[:, outside].any()
