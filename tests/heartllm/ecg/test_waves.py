"""The delineator against the drawn truth of synthetic ECGs, which it knows nothing of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heartllm.data.dataset import open_dataset
from heartllm.data.synthetic import Truth, simulate
from heartllm.ecg.recording import LEADS
from heartllm.ecg.waves import AFTER, BEFORE, Waves, averaged_beat, beat_windows, delineate, find_beats

Measured = tuple[np.ndarray, Truth, Waves]


def measure(signal: np.ndarray) -> Waves:
    beats = find_beats(signal)
    return delineate(averaged_beat(signal, beat_windows(signal)), float(np.median(np.diff(beats))))


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    """Forty-odd recordings without labelled noise, extra beats, or atrial waves that lie in every segment."""
    found = []
    for index in range(90):
        recording, truth = simulate(3, index)
        if not truth.noise.leads and truth.extra_beats is None and truth.case.rhythm not in ("AFIB", "AFLT"):
            signal = recording.signal.astype(np.float64)
            found.append((signal, truth, measure(signal)))
    return found


def test_beats_are_counted(measured: list[Measured]) -> None:
    assert len(measured) >= 40
    wrong = [len(find_beats(signal)) - truth.rate / 6 for signal, truth, _ in measured]
    assert np.mean(np.abs(wrong) <= 1.2) >= 0.95


def test_qrs_duration(measured: list[Measured]) -> None:
    drawn = np.array([truth.intervals.qrs for _, truth, _ in measured])
    found = np.array([waves.qrs_ms for _, _, waves in measured])
    assert np.median(np.abs(found - drawn)) <= 8
    assert abs(np.mean(found - drawn)) <= 10
    assert np.corrcoef(found, drawn)[0, 1] > 0.93


def test_frontal_axis(measured: list[Measured]) -> None:
    drawn = np.array([truth.axis_deg for _, truth, _ in measured])
    error = (np.array([waves.axis for _, _, waves in measured]) - drawn + 180) % 360 - 180
    assert np.median(np.abs(error)) < 3
    assert np.mean(np.abs(error) <= 15) >= 0.95


def test_amplitudes(measured: list[Measured]) -> None:
    """R, and Sokolow-Lyon, against the noise-free beat; P in II where one was drawn."""
    r = np.array([(waves.r, np.maximum(truth.shape.r, 0)) for _, truth, waves in measured])
    assert np.median(np.abs(r[:, 0] - r[:, 1])) < 0.03
    assert np.corrcoef(r[:, 0].ravel(), r[:, 1].ravel())[0, 1] > 0.97
    sokolow = np.array([(waves.sokolow_lyon, truth.shape.sokolow) for _, truth, waves in measured])
    assert np.corrcoef(sokolow.T)[0, 1] > 0.97
    p = np.array([(waves.p_ii, truth.shape.p[1]) for _, truth, waves in measured if truth.intervals.p])
    assert np.median(np.abs(p[:, 0] - p[:, 1])) < 0.04
    st = np.array([(waves.st_v5, truth.shape.st[10]) for _, truth, waves in measured])
    assert np.median(np.abs(st[:, 0] - st[:, 1])) < 0.05


def test_gain_scales_amplitudes_and_nothing_else(measured: list[Measured]) -> None:
    for signal, _, waves in measured[:8]:
        twice = measure(2 * signal)
        np.testing.assert_allclose(twice.r, 2 * waves.r, rtol=1e-9)
        assert twice.p_ii == pytest.approx(2 * waves.p_ii)
        assert twice.st_v5 == pytest.approx(2 * waves.st_v5)
        assert (twice.qrs_ms, twice.axis) == pytest.approx((waves.qrs_ms, waves.axis))


def test_axis_of_pure_leads() -> None:
    """A QRS along lead I has axis 0; one along aVF, 90; in the opposite direction, 180."""
    qrs = np.exp(-(((np.arange(BEFORE + AFTER) - BEFORE) / 6.0) ** 2))
    for degrees in (0.0, 60.0, 90.0, -45.0, 180.0):
        lead_i, lead_ii = np.cos(np.radians(degrees)), np.cos(np.radians(degrees - 60))
        beat = np.zeros((len(LEADS), BEFORE + AFTER))
        beat[0], beat[1] = lead_i * qrs, lead_ii * qrs
        beat[5] = beat[1] - beat[0] / 2
        turned = (delineate(beat, 400.0).axis - degrees + 180) % 360 - 180
        assert abs(turned) < 1e-6


@pytest.mark.real_data
def test_axis_agrees_with_cardiologists(data_root: Path) -> None:
    """PTB-XL's own axis statements: normal is -30 to 90 degrees; left deviation lies beyond -30."""
    dataset = open_dataset("ptbxl", data_root)
    axes: dict[str, list[float]] = {"normal heart axis": [], "left axis deviation": []}
    for entry in [entry for entry in dataset.entries("test") if entry.labels.heart_axis in axes][:45]:
        signal = dataset.read(entry, nan_policy="interpolate").signal.astype(np.float64)
        axes[str(entry.labels.heart_axis)].append(measure(signal).axis)
    normal, left = axes.values()
    assert len(normal) >= 20
    assert len(left) >= 5
    assert np.mean([-30 <= axis <= 90 for axis in normal]) >= 0.95
    assert np.mean([-180 < axis <= -20 for axis in left]) >= 0.9


def test_silence_has_no_beats() -> None:
    assert len(find_beats(np.zeros((12, 5000)))) == 0
    assert len(beat_windows(np.zeros((12, 5000)))) == 0
    assert len(find_beats(np.zeros((12, 100)))) == 0
