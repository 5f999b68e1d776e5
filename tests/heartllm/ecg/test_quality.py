"""The quality report finds what was put into a clean recording, and nothing in the clean one."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.ecg import LEADS, QualityReport, Recording, quality, read_recording
from heartllm.ecg.leads import LIMB_LEADS


def examine(signal: np.ndarray) -> QualityReport:
    return quality(Recording(signal.astype(np.float32), 500.0))


def only_problem(report: QualityReport) -> str:
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def test_a_clean_recording_has_no_problems(beats: np.ndarray) -> None:
    report = examine(beats)
    assert report.problems == []
    assert report.limb.residual < 1e-6
    assert 0.5 < report.amplitude < 3


def test_missing_samples(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[3, 100:150] = signal[3, 4999] = np.nan
    report = examine(signal)
    assert [(run.lead, run.start, run.length) for run in report.nan_runs] == [("aVR", 100, 50), ("aVR", 4999, 1)]
    assert "Lead aVR misses 51 samples in 2 gaps, the longest 0.1 s." in report.problems


def test_flat_leads_and_flat_stretches(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[8] = 0.4
    assert only_problem(examine(signal)) == "Lead V3 is flat: electrode off or not recorded."
    signal = beats.copy()
    signal[8, 2000:2600] = 0.4
    assert only_problem(examine(signal)) == "Lead V3 is constant for 1.2 s from 4 s on."


def test_a_silent_recording() -> None:
    assert "flat" in only_problem(examine(np.zeros((12, 5000))))


def test_clipping(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[9] = np.clip(3 * signal[9], None, 1.2)
    assert "Lead V4 is clipped" in only_problem(examine(signal))


def test_a_held_last_value_is_no_clipping(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[9, -55:] = 2.5
    assert examine(signal).clipped == {}


@pytest.mark.parametrize("step", [0.001, 0.005, 0.02])
def test_coarse_steps_are_no_clipping(beats: np.ndarray, step: float) -> None:
    assert examine(np.round(beats / step) * step).clipped == {}


@pytest.mark.parametrize(("first", "second"), list(combinations(LIMB_LEADS, 2)))
def test_exchanged_channels_are_found_and_named(beats: np.ndarray, first: str, second: str) -> None:
    order = list(range(12))
    i, j = LEADS.index(first), LEADS.index(second)
    order[i], order[j] = j, i
    noise = np.random.default_rng(0).normal(scale=0.005, size=beats.shape)
    report = examine(beats[order] + noise)
    assert report.limb.suggestion == f"exchange {first} and {second}"
    assert "III = II - I" in only_problem(report)


@pytest.mark.parametrize("lead", LIMB_LEADS)
def test_inverted_channels_are_found_and_named(beats: np.ndarray, lead: str) -> None:
    signal = beats.copy()
    signal[LEADS.index(lead)] *= -1
    assert examine(signal).limb.suggestion == f"invert {lead}"


@settings(max_examples=20)
@given(st.permutations(range(6)))
def test_any_other_order_is_put_right(beats: np.ndarray, order: list[int]) -> None:
    signal = beats.copy()
    signal[:6] = beats[order]
    check = examine(signal).limb
    if check.residual < 0.05:
        assert order == sorted(order)
        return
    assert check.suggestion is not None
    if check.suggestion.startswith("take"):
        named = check.suggestion.removeprefix("take the channels in the order ").split()
        restored = signal[[LEADS.index(lead) for lead in named]]
        np.testing.assert_allclose(restored[2], restored[1] - restored[0], atol=1e-9)


def test_a_lead_that_fits_nothing_has_no_suggestion(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[1] = np.roll(beats[10], 700)
    check = examine(signal).limb
    assert check.residual > 0.05
    assert check.suggestion is None


def reversed_arms(signal: np.ndarray) -> np.ndarray:
    """What the machine records with the arm electrodes exchanged: I inverted, II and III exchanged, aVR and aVL too."""
    out = signal.copy()
    out[0], out[1], out[2] = -signal[0], signal[2], signal[1]
    out[3], out[4] = signal[4], signal[3]
    return out


def test_exchanged_arm_electrodes(beats: np.ndarray) -> None:
    report = examine(reversed_arms(beats))
    assert report.limb.residual < 1e-6
    assert only_problem(report) == "The electrodes of right arm and left arm may be exchanged."


def test_a_foot_electrode_on_an_arm(beats: np.ndarray) -> None:
    signal = beats.copy()
    first, second = beats[0], 0.02 * beats[1]
    signal[:6] = [first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2]
    assert only_problem(examine(signal)) == "The electrodes of right arm and right leg may be exchanged."


@pytest.mark.parametrize("factor", [1e-3 * 30, 1e3])
def test_implausible_amplitudes(beats: np.ndarray, factor: float) -> None:
    assert any("implausibly" in problem for problem in examine(beats * factor).problems)


def test_baseline_wander_and_mains_in_millivolts(beats: np.ndarray) -> None:
    time = np.arange(5000) / 500
    signal = beats.copy()
    signal[6] += 0.8 * np.sin(2 * np.pi * 0.25 * time)
    signal[7] += 0.2 * np.sin(2 * np.pi * 60 * time)
    report = examine(signal)
    assert report.baseline_wander["V1"] == pytest.approx(0.8 / np.sqrt(2), rel=0.2)
    assert report.mains_noise["V2"] == pytest.approx(0.2 / np.sqrt(2), rel=0.05)
    assert report.mains_frequency == 60
    assert len(report.problems) == 2


@pytest.mark.parametrize("samples", [1, 2, 30])
def test_very_short_recordings_do_not_fail(samples: int) -> None:
    assert isinstance(examine(np.ones((12, samples))).problems, list)


@pytest.mark.real_data
def test_real_recordings_obey_einthoven(data_root: Path) -> None:
    headers = sorted((data_root / "ptbxl" / "records500").glob("*/*.hea"))[::40]
    recordings = [read_recording(path) for path in headers]
    checks = [quality(recording).limb for recording in recordings]
    assert max(check.residual for check in checks) < 0.05
    assert sum(check.electrodes is not None for check in checks) <= len(checks) // 20
    found = [quality(Recording(reversed_arms(recording.signal), 500.0)).limb.electrodes for recording in recordings]
    assert sum(text == "right arm and left arm" for text in found) > len(found) / 2
