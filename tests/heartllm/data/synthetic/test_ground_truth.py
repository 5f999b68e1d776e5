"""What was drawn can be measured back from the samples, by a delineator that knows nothing of the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, sosfiltfilt

from heartllm.data.synthetic import Truth, simulate
from heartllm.data.synthetic.simulation import patient_and_case

RATE = 500
SINUS = ("SR", "SBRAD", "STACH", "SARRH")


def detect_beats(signal: np.ndarray) -> np.ndarray:
    """Sample numbers of QRS complexes: peaks of the slope energy over all leads, 10-30 Hz."""
    band = sosfiltfilt(butter(2, (10, 30), "band", fs=RATE, output="sos"), signal, axis=1)
    energy = np.convolve((np.gradient(band, axis=1) ** 2).sum(0), np.hanning(115), "same")
    floor = 0.2 * np.percentile(energy, 99)
    return find_peaks(energy, height=floor, distance=int(0.27 * RATE))[0]


def median_beat(signal: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """(12, 600) the median beat, each aligned by cross-correlation; 300 samples before the detection."""
    rows = [signal[:, b - 340 : b + 360] for b in beats if b >= 340 and b + 360 <= signal.shape[1]]
    first = np.median([row[:, 40:640] for row in rows], axis=0)
    core = first[:, 250:360] - first[:, 250:360].mean(1, keepdims=True)
    aligned = []
    for row in rows:
        scores = [float((core * row[:, 40 + s + 250 : 40 + s + 360]).sum()) for s in range(-30, 31)]
        shift = int(np.argmax(scores)) - 30
        aligned.append(row[:, 40 + shift : 640 + shift])
    return np.median(aligned, axis=0)


def delineate(beat: np.ndarray, rr: float) -> dict[str, float]:
    """P, PR, QRS, QT in ms and the frontal axis in degrees, from the median beat (12, 600) and RR in samples."""
    eight = beat[[0, 1, 6, 7, 8, 9, 10, 11]]
    kernel = np.hanning(7) / np.hanning(7).sum()
    smooth = np.stack([np.convolve(row, kernel, "same") for row in eight])
    speed = np.sqrt((np.gradient(smooth, axis=1) ** 2).sum(0))
    middle = 240 + int(np.argmax(speed[240:370]))
    limit = max(0.055 * speed[middle], 2.5 * float(np.percentile(speed[10:590], 20)))
    onset, end = middle, middle
    while onset > 150 and (speed[onset - 5 : onset] > limit).any():
        onset -= 1
    while end < 450 and (speed[end + 1 : end + 6] > limit).any():
        end += 1
    level = eight[:, onset - 6 : onset - 1].mean(1)
    found = {"qrs": 2.0 * (end - onset)}
    # T end: the tangent at the steepest descent of the lead with the largest T.
    after = smooth[:, end + 40 : max(min(580, onset + int(0.66 * rr)), end + 100)] - level[:, None]
    lead = int(np.argmax(np.abs(after).max(1)))
    wave = after[lead] * np.sign(after[lead][np.argmax(np.abs(after[lead]))])
    peak = int(np.argmax(wave))
    slope = np.gradient(wave)[peak : peak + 70]
    steep = peak + int(np.argmin(slope))
    found["qt"] = 2.0 * (end + 40 + steep - wave[steep] / slope[steep - peak] - onset)
    # P: above 12 % of its largest size over the baseline before QRS.
    diastole = rr - found["qt"] / 2  # from the end of T to the next QRS
    area = (eight[:2, onset:end] - level[:2, None]).sum(1)
    found["axis"] = math.degrees(math.atan2((area[1] - area[0] / 2) * 2 / math.sqrt(3), area[0]))
    if diastole < 110:  # P runs into T: not measured
        return found | {"p": math.nan, "pr": math.nan}
    size = np.sqrt(((smooth - level[:, None]) ** 2).sum(0))
    first = max(0, onset - 170, int(onset - 0.85 * diastole))
    top = first + int(np.argmax(size[first : onset - 20]))
    begin = finish = top
    while begin > first and size[begin] > 0.12 * size[top]:
        begin -= 1
    while finish < onset and size[finish] > 0.12 * size[top]:
        finish += 1
    found["pr"], found["p"] = 2.0 * (onset - begin), 2.0 * (finish - begin)
    return found


def quiet(truth: Truth) -> bool:
    """No labelled noise, no extra beats."""
    return not truth.noise.leads and truth.extra_beats is None


@pytest.fixture(scope="module")
def recordings() -> list[tuple[np.ndarray, Truth]]:
    drawn = [simulate(2024, index, "ab"[index % 2]) for index in range(260)]
    return [(recording.signal.astype(float), truth) for recording, truth in drawn]


@pytest.fixture(scope="module")
def sinus(recordings: list[tuple[np.ndarray, Truth]]) -> list[tuple[Truth, dict[str, float]]]:
    chosen = [(s, t) for s, t in recordings if quiet(t) and t.case.rhythm in SINUS and "LVOLT" not in t.scp]
    measured = []
    for signal, truth in chosen:
        beats = detect_beats(signal)
        measured.append((truth, delineate(median_beat(signal, beats), float(np.diff(beats).mean()))))
    return measured


def errors_of(name: str, sinus: list[tuple[Truth, dict[str, float]]]) -> np.ndarray:
    drawn = {
        "p": lambda t: t.intervals.p,
        "pr": lambda t: t.intervals.pr,
        "qrs": lambda t: t.intervals.qrs,
        "qt": lambda t: t.intervals.qt,
    }[name]
    found = np.array([measured[name] - drawn(truth) for truth, measured in sinus])
    return found[np.isfinite(found)]


def test_rate_is_the_drawn_rate(recordings: list[tuple[np.ndarray, Truth]]) -> None:
    misses = []
    for signal, truth in recordings:
        if truth.extra_beats is None and "electrodes problems" not in truth.noise.leads:
            misses.append(abs(60 * RATE / np.diff(detect_beats(signal)).mean() - truth.rate))
    assert np.mean(np.array(misses) < 2.0) > 0.93  # a beat lost at an end of the recording moves the mean a little
    assert np.median(misses) < 0.1


@pytest.mark.parametrize(
    ("name", "bias", "spread"),
    [("p", 6, 10), ("pr", 6, 10), ("qrs", 8, 12), ("qt", 6, 12)],  # milliseconds: of the median; of 90 % around it
)
def test_intervals_are_the_drawn_ones(
    name: str, bias: float, spread: float, sinus: list[tuple[Truth, dict[str, float]]]
) -> None:
    errors = errors_of(name, sinus)
    assert len(errors) > 60
    assert abs(np.median(errors)) <= bias
    assert np.mean(np.abs(errors - np.median(errors)) <= spread) >= 0.9


def test_axis_is_the_drawn_one(sinus: list[tuple[Truth, dict[str, float]]]) -> None:
    misses = [abs((measured["axis"] - truth.axis_deg + 180) % 360 - 180) for truth, measured in sinus]
    assert np.mean(np.array(misses) <= 6) >= 0.95
    assert max(misses) <= 20


def test_limb_leads_obey_einthoven_and_goldberger(recordings: list[tuple[np.ndarray, Truth]]) -> None:
    for _, truth in recordings[:40]:
        one, two, three, avr, avl, avf = truth.digital[:6].astype(int)
        assert (three == two - one).all()
        for augmented, twice in ((avr, -(one + two)), (avl, 2 * one - two), (avf, 2 * two - one)):
            assert np.abs(2 * augmented - twice).max() <= 1  # half a step of rounding


def beats_with(code: str, count: int, site: str = "a") -> list[np.ndarray]:
    """Median beats (12, 600) of quiet sinus recordings with a finding."""
    found = []
    for index in range(5000):
        case = patient_and_case(31, index, site)[1]
        if set(case.findings) != {code} or case.rhythm not in SINUS:
            continue
        signal, truth = simulate(31, index, site)
        if code in truth.scp and quiet(truth):
            samples = signal.signal.astype(float)
            found.append(median_beat(samples, detect_beats(samples)))
            if len(found) == count:
                return found
    raise AssertionError(f"too few recordings with {code}")


def complex_of(beat: np.ndarray) -> np.ndarray:
    """(12, W) the QRS complex over its PR level."""
    slope = np.abs(np.gradient(beat, axis=1)).sum(0)
    middle = 240 + int(np.argmax(np.convolve(slope, np.ones(60), "same")[240:370]))
    return beat[:, middle - 48 : middle + 48] - beat[:, middle - 62 : middle - 52].mean(1, keepdims=True)


def test_left_bundle_branch_block_looks_like_one() -> None:
    for beat in beats_with("CLBBB", 4):
        qrs = complex_of(beat)
        v1, v6 = qrs[6], qrs[11]
        assert -v1.min() > 3 * v1.max()  # rS or QS in V1
        assert v6.max() > 4 * -v6[: int(np.argmax(v6))].min()  # no septal q in V6
        assert (v6 > 0.5 * v6.max()).sum() * 2 >= 60  # a broad R, in ms


def test_right_bundle_branch_block_looks_like_one() -> None:
    for beat in beats_with("CRBBB", 4):
        qrs = complex_of(beat)
        v1, v6 = qrs[6], qrs[11]
        assert v1.max() > 0.2  # R' in V1
        late = int(np.argmax(v1))
        assert late > int(np.argmax(v6))  # after the left ventricle
        assert v6[late - 5 : late + 6].mean() < 0  # while V6 writes its broad S


def test_fibrillation_is_irregular_and_sinus_rhythm_is_not() -> None:
    variation: dict[str, list[float]] = {"AFIB": [], "SR": []}
    for index in range(160):
        if patient_and_case(5, index, "a")[1].rhythm not in variation:
            continue
        recording, truth = simulate(5, index)
        if quiet(truth):
            steps = np.diff(detect_beats(recording.signal.astype(float)))
            variation[truth.case.rhythm].append(float(steps.std() / steps.mean()))
    assert min(variation["AFIB"]) > 0.08
    assert np.quantile(variation["SR"], 0.95) < 0.06


def test_st_elevation_faces_the_infarct() -> None:
    """In an acute inferior infarct ST rises in II, III, aVF and falls in aVL; measured 60 ms after the QRS complex."""
    checked = 0
    for index in range(4000):
        case = patient_and_case(77, index, "a")[1]
        if case.stage != "Stadium I" or set(case.findings) != {"IMI"} or case.rhythm not in SINUS:
            continue
        recording, truth = simulate(77, index)
        if not quiet(truth):
            continue
        samples = recording.signal.astype(float)
        beats = (truth.onsets * RATE).astype(int)[1:-1]
        offset = int((truth.intervals.qrs + 60) / 2)
        level = np.mean([samples[:, b + offset] - samples[:, b - 6] for b in beats], axis=0)
        assert level[[1, 2, 5]].min() > 0.08
        assert level[2] > level[1]
        assert level[4] < -0.03
        checked += 1
        if checked == 2:
            break
    assert checked == 2
