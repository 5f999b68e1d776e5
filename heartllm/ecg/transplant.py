"""Another person's beats at this recording's beat times: the replacement that occlusion puts in place of an ECG's part.

A stretch that is set to zero, or drawn from codes at random, is like no ECG, and a model's surprise at that is not what
one wants to measure. Beats of another recording, laid where this one has its own, keep P, QRS and T in their places and
change only what they look like.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import SAMPLING_RATE

Signal = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

BEFORE = 0.4  # share of the RR interval that belongs to the beat behind it
FADE = round(0.04 * SAMPLING_RATE)  # samples over which two beats, or two recordings, blend into each other


def rooms(beats: Places, samples: int) -> Places:
    """(B, 2) first and last-plus-one sample of each beat; together they fill the recording."""
    if not len(beats):
        return np.zeros((0, 2), np.int64)
    borders = np.round(beats[1:] - BEFORE * np.diff(beats)).astype(np.int64)
    return np.stack([np.concatenate([[0], borders]), np.concatenate([borders, [samples]])], axis=1)


def transplant(beats: Places, donor: Signal, donor_beats: Places, rng: np.random.Generator) -> Signal:
    """A signal with the beat times of one recording and the beats of another.

    Each beat's room is filled with a randomly drawn inner beat of the donor, its QRS at the beat's place. Where it
    is longer than the donor's, the donor's last (or first) value is held, as between two beats; where it is shorter,
    the donor's is cut. Joins blend over 40 ms.

    Args:
        beats: (B,) samples of this recording's QRS complexes.
        donor: (12, T) mV.
        donor_beats: (D,) samples of its QRS complexes, at least three.

    Returns:
        (12, T) mV; the donor itself where this recording has no beats.
    """
    samples = donor.shape[1]
    if not len(beats):
        return donor.copy()
    inner = np.arange(1, len(donor_beats) - 1)
    theirs = rooms(donor_beats, samples)
    out = np.zeros_like(donor)
    own = rooms(beats, samples)
    for (first, last), beat in zip(own, beats, strict=True):
        chosen = int(rng.choice(inner))
        left, right = theirs[chosen]
        start, end = max(0, first - FADE), min(samples, last + FADE)
        source = np.clip(np.arange(start, end) - beat + donor_beats[chosen], left, right - 1)
        part = donor[:, source]
        weight = np.ones(end - start)
        if first > 0:
            weight[: 2 * FADE] = np.minimum(weight[: 2 * FADE], _rise(end - start))
        if last < samples:
            weight[-2 * FADE :] = np.minimum(weight[-2 * FADE :], _rise(end - start)[::-1])
        out[:, start:end] += (part * weight).astype(np.float32)
    return out


def blend(signal: Signal, other: Signal, leads: npt.NDArray[np.bool_], first: int, last: int) -> Signal:
    """`signal` (12, T) with `other` in the chosen leads (12,) from sample `first` to `last`, faded over 40 ms."""
    time = np.arange(signal.shape[1])
    weight = np.clip(np.minimum(time - first + FADE / 2, last - time + FADE / 2) / FADE, 0.0, 1.0)
    if first <= 0:
        weight[time < (first + last) / 2] = 1.0
    if last >= signal.shape[1]:
        weight[time >= (first + last) / 2] = 1.0
    weight = np.where(leads[:, None], weight[None], 0.0).astype(np.float32)
    mixed: Signal = (signal * (1 - weight) + other * weight).astype(np.float32)
    return mixed


def _rise(length: int) -> npt.NDArray[np.float64]:
    """(min(2 FADE, length),) from 0 to 1; with its mirror image at the neighbouring beat it sums to 1."""
    size = min(2 * FADE, length)
    return ((np.arange(2 * FADE) + 0.5) / (2 * FADE))[:size]
