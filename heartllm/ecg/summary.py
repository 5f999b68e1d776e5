"""What a 12-lead ECG shows, measured and put into words: for models that read text, and for nearest neighbours.

The method is a plain one and stays visible. Beats are where slopes over all leads are steepest; the beats that look
alike are averaged by their median; QRS limits are those of `heartllm.ecg.waves`; the level before QRS is zero. A P wave
counts as found where the averaged beat has one before QRS that stands clear of the beats' scatter. T ends where the
tangent at its steepest descent meets the level after it. Limits: one set of limits for all leads, no fusion with
clinical knowledge, no statements. Where P waves and T waves overlap (fast rhythms), where fewer than three beats can be
averaged, and in ventricular pacing, intervals are missing or rough. On drawn ECGs with known truth the typical errors
are those that tests/heartllm/ecg/test_summary.py holds it to. It is no medical device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartllm.ecg import waves
from heartllm.ecg.gaps import fill_gaps
from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
from heartllm.ecg.resampling import resample
from heartllm.ecg.waves import (
    INDEPENDENT,
    MS,
    Floats,
    Integers,
    beat_windows,
    delineate,
    find_beats,
    qrs_limits,
    smooth,
)

VERSION = 1  # change it with any number or wording below: caches and run records hold it
BEFORE, AFTER = 200, 350  # samples of the averaged beat around its fiducial point: -400 to +700 ms
P_SEARCH = 150  # samples before QRS onset in which a P wave is looked for: 300 ms
P_LEAST_MV, P_CLEAR = 0.04, 2.5  # how large a P wave is at least, over all leads, and against the beats' scatter
EARLY = 0.8  # of the median RR interval: a beat that comes sooner is called early


@dataclass(frozen=True)
class Measurements:
    """One recording's measurements; times in ms, amplitudes in mV against the level before QRS, None where not found.

    Attributes:
        beats: QRS complexes found. rate: beats a minute from the mean RR interval.
        rr: (beats - 1,) RR intervals. early: how many are shorter than 0.8 of the median.
        averaged: beats that look alike and were averaged.
        p_ms, pr_ms, qrs_ms, qt_ms: durations and intervals. qtc_ms: Fridericia, QT / RR[s]^(1/3).
        axis: frontal QRS axis in degrees.
        p, q, r, s, st, t: (12,) per lead in the order of `LEADS`; q and s are depths (positive); st 60 ms after QRS;
            p and t the signed extreme.
    """

    beats: int
    rate: float | None
    rr: Floats
    early: int
    averaged: int
    p_ms: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    qtc_ms: float | None = None
    axis: float | None = None
    p: Floats | None = None
    q: Floats | None = None
    r: Floats | None = None
    s: Floats | None = None
    st: Floats | None = None
    t: Floats | None = None


def measure(recording: Recording) -> Measurements:
    """Measures a recording; missing samples are bridged, other rates resampled to 500 Hz."""
    filled = fill_gaps(np.asarray(recording.signal, dtype=np.float64))
    if recording.sampling_rate != SAMPLING_RATE:
        filled = resample(filled, recording.sampling_rate, SAMPLING_RATE)
    signal: Floats = np.asarray(filled, dtype=np.float64)
    peaks = find_beats(signal)
    rr = np.diff(peaks) * MS
    rate = 60_000 / float(rr.mean()) if len(rr) else None
    early = int((rr < EARLY * np.median(rr)).sum()) if len(rr) else 0
    whole = beat_windows(signal)
    whole = whole[(whole >= BEFORE) & (whole + AFTER <= signal.shape[1])]
    if len(whole) < 3 or rate is None:
        return Measurements(len(peaks), rate, rr, early, len(whole))
    return _measure_beat(signal, whole, rr, Measurements(len(peaks), rate, rr, early, len(whole)))


def _measure_beat(signal: Floats, fiducials: Integers, rr: Floats, found: Measurements) -> Measurements:
    stack = np.stack([signal[:, place - BEFORE : place + AFTER] for place in fiducials])
    beat = np.median(stack, axis=0)
    typical = float(np.median(rr)) / MS
    near = beat[:, : waves.BEFORE + waves.AFTER]
    onset, end = qrs_limits(near)
    read = delineate(near, typical)
    level = beat[:, max(0, onset - 8) : max(1, onset - 2)].mean(1, keepdims=True)
    above = beat - level
    p = _p_wave(stack - level, above, onset, typical)
    t_end = _t_end(above, end, typical)
    qrs = above[:, onset : end + 1]
    top = qrs.argmax(1)
    before_r = np.where(np.arange(qrs.shape[1]) < top[:, None], qrs, 0.0)
    after_r = np.where(np.arange(qrs.shape[1]) > top[:, None], qrs, 0.0)
    # A complex without an R wave is one negative deflection (QS): all of it counts as Q.
    no_r = qrs.max(1) < 0.05
    q = np.where(no_r, -qrs.min(1), -before_r.min(1))
    s = np.where(no_r, 0.0, -after_r.min(1))
    j60 = min(end + round(60 / MS), beat.shape[1] - 3)
    repolarisation = above[:, j60 : max(j60 + 2, t_end or min(j60 + 100, beat.shape[1]))]
    qt = None if t_end is None else (t_end - onset) * MS
    return Measurements(
        found.beats,
        found.rate,
        rr,
        found.early,
        found.averaged,
        p_ms=None if p is None else (p[1] - p[0]) * MS,
        pr_ms=None if p is None else (onset - p[0]) * MS,
        qrs_ms=read.qrs_ms,
        qt_ms=qt,
        qtc_ms=None if qt is None else qt / (float(rr.mean()) / 1000) ** (1 / 3),
        axis=read.axis,
        p=None if p is None else _extreme(above[:, p[0] : p[1] + 1]),
        q=np.maximum(q, 0.0),
        r=read.r,
        s=np.maximum(s, 0.0),
        st=above[:, j60 - 2 : j60 + 3].mean(1),
        t=_extreme(repolarisation),
    )


def _p_wave(stack: Floats, above: Floats, onset: int, typical: float) -> tuple[int, int] | None:
    """First and last sample of the P wave of the averaged beat; None where none stands clear.

    Args:
        stack: (B, 12, W) the beats. above: (12, W) their median. typical: RR in samples.
    """
    first = max(0, onset - P_SEARCH, round(onset - 0.45 * typical))
    last = onset - 10
    if last - first < 25:
        return None
    rows = np.stack([smooth(above[lead], 9) for lead in INDEPENDENT])[:, first:last]
    size = np.sqrt((rows**2).mean(0))
    peak = int(size.argmax())
    scatter = np.median(np.abs(stack[:, INDEPENDENT, first:last] - above[INDEPENDENT, first:last]), axis=0)
    error = 1.48 * 1.25 * float(np.sqrt((scatter**2).mean())) / np.sqrt(len(stack))
    if size[peak] < max(P_LEAST_MV, P_CLEAR * error) or peak < 5:
        return None
    low = 0.25 * size[peak]
    begin, finish = peak, peak
    while begin > 0 and size[begin - 1] > low:
        begin -= 1
    while finish < len(size) - 1 and size[finish + 1] > low:
        finish += 1
    # A "wave" that fills the window, or never comes down, is a T wave, a wandering baseline or f waves.
    if begin == 0 or finish - begin > 80:
        return None
    return max(0, first + begin - 3), first + finish + 3


def _t_end(above: Floats, end: int, typical: float) -> int | None:
    """The sample where T ends: tangent at its steepest descent, over all leads; None where there is no clear T."""
    first, last = end + 30, min(above.shape[1] - 5, end + round(0.75 * typical))
    if last - first < 60:
        return None
    rows = np.stack([smooth(above[lead], 15) for lead in INDEPENDENT])
    size = np.sqrt((rows**2).mean(0))
    peak = first + int(size[first : first + max(30, (last - first) * 3 // 4)].argmax())
    if size[peak] < 0.03:
        return None
    after = size[peak:last]
    slope = np.gradient(after)
    steepest = int(slope.argmin())
    if slope[steepest] >= 0:
        return None
    floor = float(after[steepest:].min())
    crossing = peak + steepest + round((after[steepest] - floor) / -float(slope[steepest]))
    return crossing if crossing < above.shape[1] else None


def _extreme(rows: Floats) -> Floats:
    """(12, W) -> (12,): the value of largest size, with its sign."""
    return np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)[:, 0]


def summarise(recording: Recording) -> str:
    """The measurements and the signal's problems as text, one thing a line, at most about 350 words."""
    from heartllm.ecg.quality_report import quality

    found, problems = measure(recording), quality(recording).problems
    return "\n".join([*_rhythm_lines(found), *_wave_lines(found), *(f"Signal: {line}" for line in problems)])


def _rhythm_lines(found: Measurements) -> list[str]:
    if found.rate is None:
        return ["No heartbeat can be found."]
    low, high = found.rr.min(), found.rr.max()
    early = f"{found.early} of {found.beats} beats early" if found.early else "no beat early"
    return [
        f"Heart rate: {found.rate:.0f}/min.",
        f"RR intervals: {low:.0f} to {high:.0f} ms, standard deviation {found.rr.std():.0f} ms; {early}.",
    ]


def _wave_lines(found: Measurements) -> list[str]:
    if found.r is None or found.q is None or found.s is None or found.st is None or found.t is None:
        return [] if found.rate is None else ["Waves: too few beats look alike to be measured."]
    if found.p_ms is None:
        lines = ["P wave: none found before QRS."]
    else:
        lines = [f"P wave: {found.p_ms:.0f} ms. PR interval: {found.pr_ms:.0f} ms."]
    lines.append(f"QRS duration: {found.qrs_ms:.0f} ms. QRS axis: {found.axis:.0f} degrees.")
    if found.qt_ms is not None:
        lines.append(f"QT interval: {found.qt_ms:.0f} ms. QTc (Fridericia): {found.qtc_ms:.0f} ms.")
    lines.append("Amplitudes in mV (P, Q depth, R, S depth, ST level 60 ms after QRS, T):")
    for row, lead in enumerate(LEADS):
        p = "none" if found.p is None else _signed(found.p[row])
        lines.append(
            f"{lead}: P {p}, Q {found.q[row]:.2f}, R {found.r[row]:.2f}, S {found.s[row]:.2f}, "
            f"ST {_signed(found.st[row])}, T {_signed(found.t[row])}"
        )
    return lines


def _signed(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:+.2f}"
