"""Resampling keeps what is below the new Nyquist frequency and removes the rest; lengths change only with a note."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from heartllm.ecg import LEADS, LengthPolicy, RawSignal, Recording, fit_length, make_recording, resample, windows
from heartllm.errors import DataError, UsageError


def tone(frequency: float, rate: float, seconds: float = 10.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)[None]


def rms(signal: np.ndarray) -> float:
    return float(np.sqrt((signal[..., 500:-500] ** 2).mean()))  # away from the edges


def test_a_tone_below_nyquist_keeps_its_amplitude_and_phase() -> None:
    result = resample(tone(100, 1000), 1000, 500)
    assert result.shape == (1, 5000)
    assert rms(result) == pytest.approx(np.sqrt(0.5), rel=0.005)
    np.testing.assert_allclose(result[:, 500:-500], tone(100, 500)[:, 500:-500], atol=0.01)


def test_a_tone_above_nyquist_is_removed() -> None:
    assert rms(resample(tone(400, 1000), 1000, 500)) < 0.002


@pytest.mark.parametrize("rate", [100, 240, 250, 257, 360, 400, 977, 1000, 2000])
def test_the_rates_of_recorders(rate: int) -> None:
    result = resample(tone(17, rate), rate, 500)
    assert abs(result.shape[1] - 5000) <= 1
    count = min(result.shape[1], 5000)
    np.testing.assert_allclose(result[:, 500 : count - 500], tone(17, 500)[:, 500 : count - 500], atol=0.01)


def test_the_filter_is_scipys(beats: np.ndarray) -> None:
    expected = scipy_signal.resample_poly(beats, 5, 2, axis=1, padtype="line")
    np.testing.assert_allclose(resample(beats, 200, 500), expected, atol=5e-4)


def test_an_offset_does_not_ring_at_the_edges() -> None:
    np.testing.assert_allclose(resample(np.full((1, 400), 3.0), 400, 500), 3.0, atol=1e-9)


def test_a_higher_rate_comes_back(beats: np.ndarray) -> None:
    np.testing.assert_allclose(resample(resample(beats, 500, 1000), 1000, 500)[:, 50:-50], beats[:, 50:-50], atol=0.005)


@pytest.mark.parametrize(("rate", "target"), [(0, 500), (-1, 500), (500, 0), (float("nan"), 500), (1e9, 500)])
def test_rates_that_make_no_sense(rate: float, target: float) -> None:
    with pytest.raises(UsageError, match="cannot resample"):
        resample(np.zeros((1, 10)), rate, target)


def test_resampling_is_noted(beats: np.ndarray) -> None:
    raw = RawSignal(beats[:, ::2], LEADS, ("mV",) * 12, 250.0, "x", Path("x"))
    recording = make_recording(raw)
    assert recording.notes == ("resampled 250 -> 500 Hz",)
    assert recording.sampling_rate == 500
    np.testing.assert_allclose(recording.signal[:, 50:-50], beats[:, 50:-50], atol=0.03)


# --- lengths ---------------------------------------------------------------------------------------------------------


def recording_of(seconds: float) -> Recording:
    samples = round(seconds * 500)
    return Recording(np.arange(12 * samples, dtype=np.float32).reshape(12, samples), 500.0, path=Path("r.csv"))


def test_ten_seconds_stay_untouched() -> None:
    recording = recording_of(10)
    for kind in ("fit", "crop", "pad", "keep"):
        assert fit_length(recording, LengthPolicy(kind)) is recording


@pytest.mark.parametrize("kind", ["fit", "crop"])
def test_crop(kind: str) -> None:
    whole = recording_of(14)
    cropped = fit_length(whole, LengthPolicy(kind))  # type: ignore[arg-type]
    np.testing.assert_array_equal(cropped.signal, whole.signal[:, :5000])
    assert cropped.notes == ("cropped to the first 10 s of 14 s",)


@pytest.mark.parametrize("kind", ["fit", "pad"])
def test_pad(kind: str) -> None:
    short = recording_of(8.5)
    padded = fit_length(short, LengthPolicy(kind))  # type: ignore[arg-type]
    np.testing.assert_array_equal(padded.signal[:, :4250], short.signal)
    assert not padded.signal[:, 4250:].any()
    assert padded.notes == ("padded with zeros at the end from 8.5 s to 10 s",)


def test_crop_and_pad_refuse_the_other_case() -> None:
    with pytest.raises(DataError, match=r"r\.csv: 8 s long, less than 10 s"):
        fit_length(recording_of(8), "crop")
    with pytest.raises(DataError, match=r"r\.csv: 14 s long, more than 10 s"):
        fit_length(recording_of(14), "pad")


def test_another_length_than_ten_seconds() -> None:
    assert fit_length(recording_of(14), LengthPolicy("fit", 5.0)).signal.shape == (12, 2500)
    with pytest.raises(UsageError, match="a length of 0 s"):
        LengthPolicy("fit", 0)


@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 60))
def test_windows_are_the_slices_they_say(total: int, size: int, step: int) -> None:
    recording = Recording(np.arange(12 * total, dtype=np.float32).reshape(12, total), 10.0, path=Path("r.csv"))
    if total < size:
        with pytest.raises(DataError, match=r"r\.csv: .* less than one window"):
            windows(recording, size / 10, step / 10)
        return
    cut = windows(recording, size / 10, step / 10)
    assert len(cut) == (total - size) // step + 1
    for index, window in enumerate(cut):
        np.testing.assert_array_equal(window.signal, recording.signal[:, index * step : index * step + size])
        assert window.notes[-1].startswith(f"window {index + 1} of {len(cut)}, from {index * step / 10:g} s")


def test_windows_follow_one_another_by_default_and_tell_the_rest() -> None:
    cut = windows(recording_of(24))
    assert [window.signal[0, 0] for window in cut] == [0, 5000]
    assert cut[1].notes == ("window 2 of 2, from 10 s; the last 4 s are in no window",)
    with pytest.raises(UsageError, match="windows of"):
        windows(recording_of(24), 10, 0)
