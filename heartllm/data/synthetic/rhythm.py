"""When the beats come: onset times and kinds of beat for each rhythm, and the atria's own activity in AF and
flutter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartllm.data.synthetic.anatomy import Array
from heartllm.data.synthetic.cases import Case

CONDUCTED, VENTRICULAR, ATRIAL = range(3)
LEAD_IN = 1.2  # seconds simulated before and after the recording
RATE_RANGE = {  # beats a minute
    "SR": (60, 98), "SBRAD": (42, 57), "STACH": (104, 140), "SARRH": (58, 88), "AFIB": (58, 140), "AFLT": (0, 0),
    "PACE": (58, 84), "SVTAC": (150, 205),
}  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """The beats of a recording.

    Attributes:
        onsets: (B,) QRS onset in seconds, from before 0 to after the end. kinds: (B,) CONDUCTED, VENTRICULAR or ATRIAL.
        preceding: (B,) the RR interval before the beat, seconds.
        flutter_rate: atrial waves a minute in flutter, else 0.
    """

    onsets: Array
    kinds: npt.NDArray[np.int64]
    preceding: Array
    flutter_rate: float = 0.0


def draw_rate(case: Case, rng: np.random.Generator) -> tuple[float, float, int]:
    """Ventricular rate (beats a minute), flutter rate (0 without), conduction ratio (0: varying, or no flutter)."""
    if case.rhythm == "AFLT":
        flutter = float(rng.uniform(250, 330))
        ratio = int(rng.choice([2, 3, 4, 4, 0]))
        return flutter / (ratio or 3.2), flutter, ratio
    low, high = RATE_RANGE[case.rhythm]
    return float(rng.uniform(low, high)), 0.0, 0


def _intervals(case: Case, rate: float, flutter: float, ratio: int, count: int, rng: np.random.Generator) -> Array:
    mean = 60.0 / rate
    if case.rhythm == "AFIB":
        shape = 1 / 0.21**2
        return np.maximum(mean * rng.gamma(shape, 1 / shape, count), 0.30)
    if case.rhythm == "AFLT":
        ratios = np.full(count, ratio) if ratio else rng.choice([2, 3, 4], size=count, p=[0.25, 0.3, 0.45])
        return ratios * 60.0 / flutter
    jitter = {"PACE": 0.001, "SVTAC": 0.005}.get(case.rhythm, 0.013)
    breathing = rng.uniform(0.20, 0.30)
    depth = rng.uniform(0.13, 0.22) if case.rhythm == "SARRH" else rng.uniform(0.0, 0.025)
    depth = depth if case.rhythm in {"SR", "SBRAD", "STACH", "SARRH"} else 0.0
    phase = 2 * np.pi * (breathing * mean * np.arange(count) + rng.random())
    return mean * (1 + depth * np.sin(phase) + jitter * rng.normal(size=count))


def draw_schedule(
    case: Case, rate: float, flutter: float, ratio: int, duration: float, rng: np.random.Generator
) -> Schedule:
    """Places the beats, with the case's premature beats (a PVC pauses the sinus node's beat, a PAC resets it)."""
    count = int((duration + 2 * LEAD_IN) / (60.0 / rate) * 1.6) + 6
    steps = _intervals(case, rate, flutter, ratio, count, rng)
    kinds = np.zeros(count, dtype=np.int64)
    if case.ectopy:
        kind = VENTRICULAR if case.ectopy == "PVC" else ATRIAL
        coupling = rng.uniform(0.56, 0.70)
        places = _ectopic_places(case, steps, duration, rng)
        for place in places:
            if place + 1 >= count:
                continue
            kinds[place] = kind
            whole = steps[place]
            steps[place] = max(coupling * whole, 0.36)
            steps[place + 1] = 2 * whole - steps[place] if kind == VENTRICULAR else 1.08 * whole
    onsets = -LEAD_IN + 0.4 * steps[0] + np.concatenate([[0.0], np.cumsum(steps[1:])])
    keep = onsets < duration + LEAD_IN
    return Schedule(onsets[keep], kinds[keep], steps[keep], flutter)


def _ectopic_places(case: Case, steps: Array, duration: float, rng: np.random.Generator) -> list[int]:
    if case.pattern:
        period = 2 if case.pattern == "BIGU" else 3
        return list(range(period - 1, len(steps) - 1, period))
    times = -LEAD_IN + np.cumsum(steps)
    inside = np.flatnonzero((times > 1.0) & (times < duration - 1.5))
    if not len(inside):
        return []
    chosen: list[int] = []
    for place in rng.permutation(inside):
        if len(chosen) < case.ectopics and all(abs(place - other) > 2 for other in chosen):
            chosen.append(int(place))
    return sorted(chosen)


def atrial_activity(
    case: Case, schedule: Schedule, field: Array, samples: int, rate: float, rng: np.random.Generator
) -> Array:
    """(8, T) millivolts of fibrillatory or flutter waves; zeros in any other rhythm."""
    time = np.arange(samples) / rate
    if case.rhythm == "AFIB":
        sizes = rng.uniform(0.025, 0.075) * np.array([0.45, 0.8, 1.1])
        out = np.zeros((8, samples))
        for axis in range(3):
            base = rng.uniform(5.0, 7.5)
            wobble = rng.uniform(0.5, 1.2) * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * time + rng.uniform(0, 6.28))
            phase = 2 * np.pi * np.cumsum(base + wobble) / rate + rng.uniform(0, 6.28)
            swell = 1 + 0.45 * np.sin(2 * np.pi * rng.uniform(0.25, 0.7) * time + rng.uniform(0, 6.28))
            wave = swell * (np.sin(phase) + 0.35 * np.sin(2 * phase + 1.0))
            out += (field[:, axis] * sizes[axis])[:, None] * wave
        return out
    if case.rhythm == "AFLT":
        phase = (time - schedule.onsets[0] + 0.06) * schedule.flutter_rate / 60.0 % 1.0
        saw = np.where(phase < 0.72, 0.5 - phase / 0.72, (phase - 0.72) / 0.28 - 0.5)  # slow fall, quick rise
        vector = np.array([0.02, 0.26, -0.03]) * rng.uniform(0.8, 1.3)
        bump = np.cos(2 * np.pi * (phase - 0.9)) * np.array([-0.02, 0.0, 0.06])[:, None]
        return field @ (vector[:, None] * saw + bump)
    return np.zeros((8, samples))
