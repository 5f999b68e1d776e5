"""Waves of one beat as a sum of bumps with an exact beginning and end, and their rendering.

A wave is `sin(pi * u**warp)**power` on its support, u running from 0 to 1: unlike a Gaussian it has an onset and an
end, so the drawn intervals are the true ones. Every bump carries its potential in the eight independent leads, the
projection of its heart vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from heartllm.data.synthetic.anatomy import TWELVE_FROM_EIGHT, Array

P_WAVE, QRS, ST, T_WAVE = range(4)
# (warp, power) of the bumps: P, QRS, ST, T, and the broad scoop of digitalis.
SHAPES = {"p": (1.0, 1.6), "qrs": (1.0, 1.7), "st": (0.62, 0.9), "t": (1.45, 2.0), "peak": (1.15, 3.2)}
SHAPE_NAMES = tuple(SHAPES)
TABLE_SIZE = 2048
WINDOW = (-0.40, 0.82)  # seconds around QRS onset


@lru_cache(maxsize=1)
def _tables() -> npt.NDArray[np.float32]:
    """(shapes, TABLE_SIZE + 2): each bump sampled over its support; first and last entries are zero."""
    u = np.linspace(0.0, 1.0, TABLE_SIZE + 2)
    rows = [np.clip(np.sin(np.pi * u**warp), 0.0, None) ** power for warp, power in SHAPES.values()]
    table = np.stack(rows).astype(np.float32)
    table[:, [0, -1]] = 0.0
    return table


@dataclass(frozen=True)
class Beat:
    """The bumps of one kind of beat. Times are seconds from QRS onset.

    Attributes:
        begin, end: (K,) support of every bump.
        shape: (K,) index into `SHAPES`.
        wave: (K,) P_WAVE, QRS, ST or T_WAVE.
        potential: (K, 8) millivolts at the bump's peak in the independent leads.
    """

    begin: Array
    end: Array
    shape: npt.NDArray[np.int64]
    wave: npt.NDArray[np.int64]
    potential: Array


class BeatBuilder:
    """Collects bumps given as heart vectors and projects them with a patient's lead field (8, 3)."""

    def __init__(self, field: Array) -> None:
        self.field = field
        self.rows: list[tuple[float, float, int, int, Array]] = []

    def add(self, wave: int, shape: str, begin: float, end: float, vector: Array, local: Array | None = None) -> None:
        """Adds a bump from a heart vector (3,) mV, plus `local` (8,) mV seen only by the nearest electrodes."""
        potential = self.field @ vector
        if local is not None:
            potential = potential + local
        self.rows.append((begin, end, SHAPE_NAMES.index(shape), wave, potential))

    def build(self) -> Beat:
        begin, end, shape, wave, potential = zip(*self.rows, strict=True)
        return Beat(np.array(begin), np.array(end), np.array(shape), np.array(wave), np.array(potential))


def render(
    beat: Beat,
    onsets: Array,
    *,
    stretch: Array,
    pr_shift: Array,
    gain: Array,
    p_present: npt.NDArray[np.bool_],
    out: npt.NDArray[np.float32],
    sampling_rate: float,
) -> None:
    """Adds beats to `out` (8, T).

    Args:
        onsets: (B,) seconds of QRS onset. stretch: (B,) factor on the time of ST and T (QT follows the RR interval).
        pr_shift: (B,) seconds by which P comes earlier than in the template. gain: (B, 8) respiration and variability.
        p_present: (B,) whether the beat has its P wave.
    """
    if not len(onsets):
        return
    late = beat.wave >= ST
    scale = np.where(late[None, :], stretch[:, None], 1.0)
    shift = np.where((beat.wave == P_WAVE)[None, :], -pr_shift[:, None], 0.0)
    begin, end = beat.begin * scale + shift, beat.end * scale + shift
    for wave, chosen in ((P_WAVE, beat.wave == P_WAVE), (QRS, beat.wave == QRS), (ST, late)):
        if chosen.any() and (wave != P_WAVE or p_present.any()):
            weight = gain * p_present[:, None] if wave == P_WAVE else gain
            bumps = (begin[:, chosen], end[:, chosen], beat.shape[chosen], beat.potential[chosen])
            _render_bumps(onsets, *bumps, gain=weight, out=out, sampling_rate=sampling_rate)


def _render_bumps(
    onsets: Array,
    begin: Array,
    end: Array,
    shape: npt.NDArray[np.int64],
    potential: Array,
    *,
    gain: Array,
    out: npt.NDArray[np.float32],
    sampling_rate: float,
) -> None:
    """Adds K bumps of B beats: `begin`, `end` (B, K) seconds from onset, `shape` (K,), `potential` (K, 8), `gain` (B,
    8)."""
    first = np.floor((onsets + begin.min()) * sampling_rate).astype(np.int64)
    width = int(np.ceil((end.max() - begin.min()) * sampling_rate)) + 2
    slope = (TABLE_SIZE + 1) / ((end - begin) * sampling_rate)  # table entries a sample, (B, K)
    start = (first[:, None] - (onsets[:, None] + begin) * sampling_rate) * slope
    position = np.arange(width, dtype=np.float32) * slope[:, :, None].astype(np.float32)
    position += start[:, :, None].astype(np.float32)
    np.clip(position, 0, TABLE_SIZE + 1, out=position)
    index = position.astype(np.int32)
    index += (shape * (TABLE_SIZE + 2)).astype(np.int32)[None, :, None]
    waves = np.matmul(potential.T.astype(np.float32)[None], _tables().ravel()[index])
    waves *= gain[:, :, None].astype(np.float32)
    total = out.shape[1]
    for number, place in enumerate(first.tolist()):
        low, high = max(0, place), min(total, place + width)
        if low < high:
            out[:, low:high] += waves[number, :, low - place : high - place]


def template(beat: Beat, sampling_rate: float = 500.0) -> tuple[Array, Array]:
    """The beat alone: times (W,) from QRS onset and the twelve leads (12, W) in millivolts."""
    out = np.zeros((8, int((WINDOW[1] - WINDOW[0]) * sampling_rate)), dtype=np.float32)
    one = np.ones(1)
    render(
        beat,
        one * -WINDOW[0],
        stretch=one,
        pr_shift=0 * one,
        gain=np.ones((1, 8)),
        p_present=np.ones(1, dtype=bool),
        out=out,
        sampling_rate=sampling_rate,
    )
    time = np.arange(out.shape[1]) / sampling_rate + WINDOW[0]
    return time, TWELVE_FROM_EIGHT @ out
