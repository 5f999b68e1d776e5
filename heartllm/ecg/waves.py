"""A small delineator: where the beats are, one averaged beat, and what is read off it.

It serves comparisons (an ECG with its reconstruction, the measurements of a summary), not diagnosis: one pair of QRS
limits holds for all leads, a beat of another origin is left out of the average, and a P wave is looked for in every
rhythm. Amplitudes are in mV against the level just before QRS onset, times in ms, all at 500 Hz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import LEADS, SAMPLING_RATE

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MS = 1000 / SAMPLING_RATE  # of a sample
BEFORE, AFTER = 200, 225  # samples of an averaged beat before and after its fiducial point: -400 to +450 ms
CORE = slice(BEFORE - 40, BEFORE + 60)  # where beats are compared in shape: -80 to +120 ms
T_REACH, T_SHARE = int(0.4 * SAMPLING_RATE), 0.6  # how long after QRS a T wave peaks, and how steep it may be, squared
ALIKE = 0.8  # correlation with the typical beat that makes a beat one of its kind
INDEPENDENT = [LEADS.index(name) for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]


@dataclass(frozen=True)
class Waves:
    """What is read off one averaged beat.

    Attributes:
        r: (12,) largest positive deflection of QRS in mV, 0 where there is none.
        s: (12,) depth of the largest negative one, as a positive number.
        r_time: (12,) ms of the largest positive one after the averaged beat's fiducial point.
        p_ii: height of the P wave in II above the PQ level.
        qrs_ms: from the first onset to the last end in any lead.
        st_v5: level of V5 60 ms after the end of QRS.
        axis: frontal axis in degrees from the net QRS areas of I and aVF.
    """

    r: Floats
    s: Floats
    r_time: Floats
    p_ii: float
    qrs_ms: float
    st_v5: float
    axis: float

    @property
    def sokolow_lyon(self) -> float:
        """S in V1 plus the larger R of V5 and V6, in mV; 3.5 and more suggests left ventricular hypertrophy."""
        return float(self.s[LEADS.index("V1")] + max(self.r[LEADS.index("V5")], self.r[LEADS.index("V6")]))


def find_beats(signal: Floats) -> Integers:
    """(12, T) mV at 500 Hz -> samples of the QRS complexes: where slopes of 5 to 25 Hz are steepest over all leads."""
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, find_peaks, sosfiltfilt

    if signal.shape[1] < SAMPLING_RATE:
        return np.zeros(0, np.int64)
    band = sosfiltfilt(butter(2, (5, 25), "bandpass", fs=SAMPLING_RATE, output="sos"), signal, axis=1)
    energy = uniform_filter1d((np.gradient(band, axis=1) ** 2).sum(0), 50)
    second = int(SAMPLING_RATE)
    tops = [energy[first : first + 2 * second].max() for first in range(0, len(energy) - second + 1, second)]
    peaks, _ = find_peaks(energy, height=0.25 * float(np.median(tops)) + 1e-12, distance=int(0.27 * SAMPLING_RATE))
    kept: list[int] = []
    for peak in peaks:  # a weaker peak soon after a beat is that beat's T wave
        if not kept or peak - kept[-1] > T_REACH or energy[peak] > T_SHARE * energy[kept[-1]]:
            kept.append(int(peak))
    return np.array(kept, np.int64)


def beat_windows(signal: Floats) -> Integers:
    """(12, T) mV -> fiducial samples of the alike, whole beats, moved by at most 30 ms to fit each other."""
    peaks = find_beats(signal)
    margin = 15
    peaks = peaks[(peaks >= BEFORE + margin) & (peaks < signal.shape[1] - AFTER - margin)]
    if len(peaks) < 3:
        return peaks
    template = np.median([_core(signal, peak) for peak in peaks], axis=0)
    moved, scores = [], []
    for peak in peaks:
        likeness = [_correlation(_core(signal, peak + move), template) for move in range(-margin, margin + 1)]
        moved.append(peak + int(np.argmax(likeness)) - margin)
        scores.append(max(likeness))
    alike = np.array(scores) >= ALIKE
    return np.array(moved)[alike] if alike.sum() >= 3 else np.array(moved)


def averaged_beat(signal: Floats, fiducials: Integers) -> Floats:
    """(12, BEFORE + AFTER) mV: the median over beats, sample by sample."""
    beats = [signal[:, fiducial - BEFORE : fiducial + AFTER] for fiducial in fiducials]
    return np.median(beats, axis=0)


def delineate(beat: Floats, rr: float) -> Waves:
    """Reads the waves off an averaged beat.

    Args:
        beat: (12, BEFORE + AFTER) mV.
        rr: typical distance of beats in samples; the P wave is looked for no earlier than half of it before QRS.
    """
    onset, end = qrs_limits(beat)
    level = beat[:, max(0, onset - 8) : max(1, onset - 2)].mean(1, keepdims=True)
    above = beat - level
    qrs = above[:, onset : end + 1]
    early = max(0, onset - 125, onset - int(0.5 * rr))
    p_wave = smooth(above[LEADS.index("II"), early : max(early + 1, onset - 8)], 7)
    area_i, area_avf = (float(qrs[LEADS.index(name)].sum()) for name in ("I", "aVF"))
    j60 = min(end + round(60 / MS), beat.shape[1] - 3)
    return Waves(
        r=np.maximum(qrs.max(1), 0),
        s=np.maximum(-qrs.min(1), 0),
        r_time=(onset + qrs.argmax(1) - BEFORE) * MS,
        p_ii=float(p_wave.max()),
        qrs_ms=(end - onset) * MS,
        st_v5=float(above[LEADS.index("V5"), j60 - 2 : j60 + 3].mean()),
        # aVF is an augmented lead: sqrt(3) / 2 as long as I for the same projection.
        axis=math.degrees(math.atan2(2 / math.sqrt(3) * area_avf, area_i)),
    )


def qrs_limits(beat: Floats) -> tuple[int, int]:
    """First and last sample of QRS: outward from the steepest point until the slope over all leads stays low for 10 ms.

    "Low" is 6 % of the steepest slope, or three times the beat's usual slope where noise makes that higher.
    """
    rows = np.stack([smooth(beat[lead], 5) for lead in INDEPENDENT])
    speed = np.sqrt((np.gradient(rows, axis=1) ** 2).sum(0))
    steepest = CORE.start + int(speed[CORE].argmax())
    limit = max(0.06 * speed[steepest], 3 * float(np.percentile(speed, 25)))
    low = speed < limit
    onset, end = steepest, steepest
    while onset > 8 and not low[onset - 5 : onset].all():
        onset -= 1
    while end < len(low) - 9 and not low[end + 1 : end + 6].all():
        end += 1
    return onset, end


def _core(signal: Floats, fiducial: int) -> Floats:
    part = signal[:, fiducial - BEFORE + CORE.start : fiducial - BEFORE + CORE.stop]
    return part - part.mean(1, keepdims=True)


def _correlation(a: Floats, b: Floats) -> float:
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def smooth(row: Floats, width: int) -> Floats:
    """Moving average over `width` samples, the ends repeated."""
    padded = np.pad(row, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), "valid")
