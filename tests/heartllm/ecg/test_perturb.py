"""Perturbations: the physics of leads and electrodes, exact noise levels, the same noise every time."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.data.synthetic import simulate
from heartllm.data.synthetic.artefacts import LEADS_FROM_ELECTRODES
from heartllm.ecg.limb_leads import check_limb_leads
from heartllm.ecg.perturb import (
    ELECTRODES,
    Perturbation,
    electrodes_from_leads,
    fill_matrix,
    leads_from_electrodes,
    parse,
    perturb,
    snr_db,
)
from heartllm.ecg.perturb_kinds import KINDS, NOISES
from heartllm.ecg.recording import LEADS, Recording
from heartllm.errors import UsageError


@cache
def simulated(index: int) -> Recording:
    return simulate(5, index)[0]


@pytest.fixture(scope="module")
def ecg() -> Recording:
    return simulated(3)


def after(recording: Recording, *texts: str, seed: int = 0) -> Recording:
    return perturb(recording, [parse(text) for text in texts], seed)


def lead(recording: Recording, name: str) -> np.ndarray:
    return recording.lead(name).astype(np.float64)


def test_every_kind_has_a_help_text_and_an_example_that_works(ecg: Recording) -> None:
    examples = (
        "noise=10dB", "noise=muscle:5dB", "noise=wander:0.3mV", "baseline=0.3", "gain=1.5", "swap=LA-RA",
        "channels=aVL-aVF", "missing=V3", "missing=V1+V2:interpolate", "resample=250", "lowpass=40",
    )  # fmt: skip
    assert {text.partition("=")[0] for text in examples} == set(KINDS)
    for text in examples:
        found = after(ecg, text)
        assert found.signal.shape == ecg.signal.shape
        assert found.signal.dtype == np.float32
        assert not np.array_equal(found.signal, ecg.signal)
        assert found.notes[-1] == f"perturbed: {parse(text)}"
        assert str(parse(str(parse(text)))) == str(parse(text))


@pytest.mark.parametrize(
    "text",
    ["", "noise", "noise=10", "noise=pink:10dB", "noise=-5mV", "gain=0", "gain=nan", "gain=x", "swap=LA-LA", "swap=LA",
     "swap=LA-XX", "channels=V1-V1", "channels=V1-V9", "missing=V9", "missing=V1:guess", "resample=0", "lowpass=-1",
     "missing=I+II+III+aVR+aVL:interpolate", "missing=V1+V2+V3+V4+V5+V6:interpolate", "wobble=3"],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--perturb") as told:
        parse(text)
    assert "\n" not in str(told.value)


def test_leads_from_electrodes_are_those_of_the_simulation() -> None:
    assert np.allclose(leads_from_electrodes(), LEADS_FROM_ELECTRODES)
    plane = leads_from_electrodes() @ electrodes_from_leads()
    assert np.allclose(plane @ plane, plane)  # leads -> electrodes -> leads changes nothing that a heart can produce


def test_arm_reversal_is_what_textbooks_say(ecg: Recording) -> None:
    found = after(ecg, "swap=LA-RA")
    for name, expected in {
        "I": -lead(ecg, "I"), "II": lead(ecg, "III"), "III": lead(ecg, "II"), "aVR": lead(ecg, "aVL"),
        "aVL": lead(ecg, "aVR"), "aVF": lead(ecg, "aVF"), "V1": lead(ecg, "V1"), "V6": lead(ecg, "V6"),
    }.items():  # fmt: skip
        assert np.allclose(lead(found, name), expected, atol=0.003), name
    assert check_limb_leads(found.signal.astype(float), 500).electrodes == "right arm and left arm"


def test_other_limb_reversals(ecg: Recording) -> None:
    found = after(ecg, "swap=LA-LL")
    assert np.allclose(lead(found, "I"), lead(ecg, "II"), atol=0.003)
    assert np.allclose(lead(found, "III"), -lead(ecg, "III"), atol=0.003)
    assert np.allclose(lead(found, "aVR"), lead(ecg, "aVR"), atol=0.003)
    found = after(ecg, "swap=RA-LL")
    assert np.allclose(lead(found, "II"), -lead(ecg, "II"), atol=0.003)
    assert np.allclose(lead(found, "I"), -lead(ecg, "III"), atol=0.003)
    assert np.allclose(lead(found, "aVL"), lead(ecg, "aVL"), atol=0.003)
    found = after(ecg, "swap=RL-RA")
    assert np.abs(lead(found, "II")).max() < 0.003
    assert check_limb_leads(found.signal.astype(float), 500).electrodes == "right arm and right leg"
    found = after(ecg, "swap=V1-V2")
    assert np.allclose(lead(found, "V1"), lead(ecg, "V2"), atol=1e-6)
    assert np.array_equal(found.signal[:6], ecg.signal[:6])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([*ELECTRODES, "RL"]), min_size=2, max_size=2, unique=True))
def test_swaps_keep_the_lead_relations_and_undo_themselves(pair: list[str]) -> None:
    ecg = simulated(4)
    text = f"swap={pair[0]}-{pair[1]}"
    found = after(ecg, text)
    i, ii, iii = (lead(found, name) for name in ("I", "II", "III"))
    assert np.allclose(ii - i, iii, atol=0.003)
    assert np.allclose(lead(found, "aVR"), -(i + ii) / 2, atol=0.003)
    if "RL" not in pair:  # an electrode that goes to the leg is lost
        assert np.allclose(after(found, text).signal, ecg.signal, atol=0.003)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NOISES), st.floats(-10, 40), st.integers(0, 9))
def test_noise_has_exactly_the_level_asked_and_obeys_the_lead_relations(kind: str, level: float, seed: int) -> None:
    ecg = simulated(1)
    found = after(ecg, f"noise={kind}:{level:.2f}dB", seed=seed)
    noise = found.signal.astype(np.float64) - ecg.signal.astype(np.float64)
    assert snr_db(ecg.signal.astype(np.float64), noise) == pytest.approx(round(level, 2), abs=0.02)
    assert np.allclose(noise[1] - noise[0], noise[2], atol=1e-4)
    assert np.allclose(noise[0] - noise[1] / 2, noise[4], atol=1e-4)


def test_noise_spectra() -> None:
    flat = Recording(np.zeros((12, 5000), np.float32), 500.0, "1")
    frequency = np.fft.rfftfreq(5000, 1 / 500)

    def share(kind: str, low: float, high: float) -> float:
        power = np.abs(np.fft.rfft(after(flat, f"noise={kind}:1mV").signal.astype(float), axis=1)) ** 2
        return float(power[:, (frequency >= low) & (frequency <= high)].sum() / power[:, 1:].sum())

    assert share("wander", 0.05, 0.7) > 0.95
    assert share("powerline", 49.9, 50.1) > 0.99
    assert share("powerline60", 59.9, 60.1) > 0.99
    assert share("muscle", 20, 150) > 0.75
    assert share("muscle", 0, 5) < 0.02
    assert share("white", 0, 125) == pytest.approx(0.5, abs=0.03)


def test_amplitudes_in_millivolts() -> None:
    flat = Recording(np.zeros((12, 5000), np.float32), 500.0, "1")
    for text in ("baseline=0.3", "noise=muscle:0.3mV"):
        found = after(flat, text).signal.astype(float)
        assert float(np.sqrt(found.var(axis=1).mean())) == pytest.approx(0.3, rel=1e-4)
    assert np.array_equal(after(flat, "noise=10dB").signal, flat.signal)  # no signal, so no noise at any ratio


def test_the_same_noise_at_every_strength_and_another_for_every_recording(ecg: Recording) -> None:
    quiet, loud = (after(ecg, f"noise={level}dB").signal.astype(float) - ecg.signal for level in (20, 0))
    assert np.allclose(loud, 10 * quiet, atol=1e-4)
    again = after(ecg, "noise=0dB").signal - ecg.signal
    assert np.array_equal(again, (after(ecg, "noise=0dB").signal - ecg.signal))
    other = Recording(ecg.signal, 500.0, "another", ecg.source)
    for different in (after(ecg, "noise=0dB", seed=1), after(other, "noise=0dB"), after(ecg, "noise=muscle:0dB")):
        noise = different.signal.astype(float) - ecg.signal
        assert abs(np.corrcoef(noise[1], loud[1])[0, 1]) < 0.1
    twice = after(ecg, "noise=0dB", "noise=0dB").signal.astype(float) - ecg.signal
    assert not np.allclose(twice, 2 * loud, atol=0.05)  # two sources, not one of double size


def test_leads_lost_and_filled_in(ecg: Recording) -> None:
    found = after(ecg, "missing=V3+II")
    assert not found.signal[[LEADS.index("V3"), 1]].any()
    assert np.array_equal(found.signal[6], ecg.signal[6])
    found = after(ecg, "missing=II:interpolate")
    assert np.allclose(found.signal, ecg.signal, atol=0.003)  # limb leads follow exactly
    found = after(ecg, "missing=V3:interpolate")
    assert np.allclose(lead(found, "V3"), (lead(ecg, "V2") + lead(ecg, "V4")) / 2, atol=1e-6)
    found = after(ecg, "missing=V1+V2:interpolate")
    assert np.array_equal(found.lead("V1"), ecg.lead("V3"))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.sampled_from(LEADS), min_size=1, max_size=6))
def test_filling_in_keeps_what_is_there_and_every_constant(lost: set[str]) -> None:
    if sum(name in LEADS[:6] for name in lost) > 4 or lost >= set(LEADS[6:]):
        return
    matrix = fill_matrix(sorted(lost, key=LEADS.index))
    kept = [index for index, name in enumerate(LEADS) if name not in lost]
    assert np.array_equal(matrix[kept], np.eye(12)[kept])
    assert not matrix[:, [index for index in range(12) if index not in kept]].any()
    assert np.allclose(matrix[6:, 6:].sum(1), 1)  # an offset of all chest leads is kept
    ecg = simulated(4).signal.astype(float)
    assert np.allclose((matrix @ ecg)[:6], ecg[:6], atol=0.004)


def test_rate_and_bandwidth(ecg: Recording) -> None:
    time = np.arange(5000) / 500
    tones = Recording(
        np.tile(np.sin(2 * np.pi * 10 * time) + np.sin(2 * np.pi * 90 * time), (12, 1)).astype("f4"), 500.0
    )

    def size(recording: Recording, hertz: float) -> float:
        middle = recording.signal[0, 500:4500].astype(float)
        return float(np.abs(np.exp(-2j * np.pi * hertz * time[500:4500]) @ middle) / 2000)

    for text in ("resample=100", "lowpass=40"):
        found = after(tones, text)
        assert found.signal.shape == (12, 5000)
        assert size(found, 10) == pytest.approx(1, abs=0.02)
        assert size(found, 90) < 0.08
    assert np.array_equal(after(ecg, "resample=500").signal, ecg.signal)
    assert after(ecg, "resample=257").signal.shape == (12, 5000)
    close = after(ecg, "resample=250").signal.astype(float) - ecg.signal
    assert np.sqrt((close**2).mean()) < 0.02


def test_order_is_kept_and_canonical_texts_name_it(ecg: Recording) -> None:
    first, second = after(ecg, "gain=2", "baseline=0.3"), after(ecg, "baseline=0.3", "gain=2")
    assert not np.allclose(first.signal, second.signal, atol=0.05)
    assert [str(parse(text)) for text in ("noise=10 db", "swap=ra-la", "missing=v3+ii", "channels=avf-aVL")] == [
        "noise=white:10dB", "swap=LA-RA", "missing=II+V3", "channels=aVL-aVF",
    ]  # fmt: skip
    assert parse("gain=2.0") == parse("gain=2") == Perturbation("gain", "2", "gain")
