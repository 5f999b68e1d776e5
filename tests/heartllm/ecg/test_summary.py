"""Measurements against the drawn truth of synthetic ECGs, which they know nothing of, and their wording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.data.dataset import open_dataset
from heartllm.data.synthetic import Truth, simulate
from heartllm.ecg.recording import LEADS, Recording
from heartllm.ecg.summary import Measurements, measure, summarise

Pairs = list[tuple[Truth, Measurements]]


@pytest.fixture(scope="module")
def measured() -> Pairs:
    """The recordings without labelled noise among ninety."""
    drawn = (simulate(11, index) for index in range(90))
    return [(truth, measure(recording)) for recording, truth in drawn if not truth.noise.leads]


def errors(pairs: list[tuple[float, float | None]]) -> np.ndarray:
    return np.abs(np.array([found - true for true, found in pairs if found is not None]))


def test_rate_and_intervals(measured: Pairs) -> None:
    assert len(measured) >= 50
    assert np.median(errors([(t.rate, m.rate) for t, m in measured])) <= 1
    assert np.median(errors([(t.intervals.qrs, m.qrs_ms) for t, m in measured])) <= 8
    assert np.median(errors([(t.intervals.qt, m.qt_ms) for t, m in measured])) <= 10
    with_p = [(t, m) for t, m in measured if t.intervals.pr is not None]
    pr = errors([(t.intervals.pr or 0, m.pr_ms) for t, m in with_p])
    assert len(pr) >= 0.85 * len(with_p)
    assert np.percentile(pr, 90) <= 10


def test_no_p_wave_is_found_where_none_was_drawn(measured: Pairs) -> None:
    without = [m for t, m in measured if t.intervals.pr is None]
    assert len(without) >= 8
    assert sum(m.pr_ms is not None for m in without) <= 0.1 * len(without)


def test_amplitudes(measured: Pairs) -> None:
    for wave in ("r", "st", "t"):
        pairs = [
            (getattr(t.shape, wave), getattr(m, wave))
            for t, m in measured
            if getattr(m, wave) is not None and t.case.rhythm not in ("AFIB", "AFLT")
        ]
        assert len(pairs) >= 40
        assert np.median(np.abs(np.array([found - true for true, found in pairs]))) <= 0.02, wave


def test_the_summary_says_what_was_measured() -> None:
    recording, truth = simulate(11, 0)
    found, text = measure(recording), summarise(recording)
    assert f"Heart rate: {found.rate:.0f}/min." in text
    assert f"QRS duration: {found.qrs_ms:.0f} ms" in text
    assert [line.split(":")[0] for line in text.splitlines() if ": P " in line] == list(LEADS)
    assert "-0.00" not in text
    assert abs((found.rate or 0) - truth.rate) < 3
    assert "nan" not in text
    assert len(text.split()) < 350


def test_at_another_rate_and_with_gaps() -> None:
    recording, _ = simulate(11, 0)
    half = Recording(recording.signal[:, ::2].copy(), 250.0)
    holed = recording.signal.copy()
    holed[3, 700:720] = np.nan
    for other in (half, Recording(holed, 500.0)):
        assert measure(other).rate == pytest.approx(measure(recording).rate, rel=0.01)
        assert abs((measure(other).qrs_ms or 0) - (measure(recording).qrs_ms or 0)) <= 12


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["silence", "noise", "step", "all missing", "one beat"]),
    samples=st.sampled_from([1, 2, 40, 499, 500, 1200, 5000]),
)
def test_anything_can_be_summarised(kind: str, samples: int) -> None:
    generator = np.random.default_rng(samples)
    signal = np.zeros((12, samples), dtype=np.float32)
    if kind == "noise":
        signal = generator.normal(0, 0.3, signal.shape).astype(np.float32)
    elif kind == "step":
        signal[:, samples // 2 :] = 5
    elif kind == "all missing":
        signal[:] = np.nan
    elif kind == "one beat":
        signal[:, samples // 2 : samples // 2 + 20] = 1
    text = summarise(Recording(signal, 500.0))
    assert text
    assert "nan" not in text.lower()


@pytest.mark.real_data
def test_measurements_agree_with_cardiologists_statements(data_root: Path) -> None:
    """PTB-XL's own statements: bradycardia, tachycardia, complete left bundle branch block, atrial fibrillation."""
    dataset = open_dataset("ptbxl", data_root)
    names = ("sinus bradycardia", "sinus tachycardia", "complete left bundle branch block", "atrial fibrillation")
    found: dict[str, list[Measurements]] = {}
    for name in names:
        entries = [entry for entry in dataset.entries("train") if name in (entry.labels.statements or {})][:12]
        found[name] = [measure(dataset.read(entry, nan_policy="interpolate")) for entry in entries]
        assert len(found[name]) >= 8
    slow, fast, block, fibrillation = found.values()
    assert np.mean([(m.rate or 0) < 63 for m in slow]) >= 0.8
    assert np.mean([(m.rate or 0) > 93 for m in fast]) >= 0.8
    assert np.mean([(m.qrs_ms or 0) >= 115 for m in block]) >= 0.8
    assert np.mean([m.rr.std() / m.rr.mean() > 0.08 for m in fibrillation]) >= 0.8
    assert np.mean([m.pr_ms is None for m in fibrillation]) >= 0.7


def test_a_p_wave_at_the_window_s_very_start() -> None:
    """A QRS that begins early leaves the P wave at the first samples; the margin before it ends at the window."""
    from heartllm.ecg.summary import _p_wave

    above = np.zeros((12, 550))
    above[:, 1:16] = 0.2 * np.hanning(19)[4:]  # large from the second sample on, falling to the seventeenth
    above[:, 6:12] = 0.3
    found = _p_wave(np.stack([above] * 6), above, onset=60, typical=400.0)
    assert found is not None
    assert found[0] >= 0
    assert found[1] > found[0]
