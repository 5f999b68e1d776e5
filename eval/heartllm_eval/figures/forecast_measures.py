"""How good is a forecast of an ECG's second half? What is read off it, and what simple forecasts do as well.

    greedy, sampled     the language model goes on with codes: the likeliest each time, or drawn at temperature 1
    repeat last beat    the last whole beat, again and again at the last RR interval
    as so far           no signal: whatever is read off the first half is expected of the second
    other patient       another patient's true second half: a real ECG, and the wrong one

Everything is read off decoded codes, the truth too (the codec's own copy of the ECG), so that no error of the codec is
counted. A code looks 88 ms ahead, so that the first 56 ms of the second half are known to all of these alike.
Errors are absolute; none is a number where truth or forecast shows nothing to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import SAMPLING_RATE, Recording
from heartllm.ecg.transplant import BEFORE
from heartllm.ecg.waves import MS, find_beats
from heartllm_eval.figures.codec_copies import errors
from heartllm_eval.statistics import Interval, bootstrap

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Errors = dict[str, float | None]
Decode = Callable[[Integers], Floats]  # (N,) codes -> (12, 16 N) mV

GREEDY, SAMPLED = "model, greedy", "model, sampled"
REPEAT, SO_FAR, OTHER = "repeat last beat", "as so far", "other patient"
SYSTEMS = (GREEDY, SAMPLED, REPEAT, SO_FAR, OTHER)
READ_ALONG, FREQUENCY, SAME_AGAIN = "model", "frequencies", "previous code"
CODE_SYSTEMS = (READ_ALONG, SAME_AGAIN, FREQUENCY)
RATE, VARIATION, PR, QRS, QT = "heart rate", "RR deviation", "PR interval", "QRS duration", "QT interval"
LOST, RMSE, UNLIKE, NATS = "no rhythm to be told", "first second, RMSE", "first second, 1 - r", "next code"
MEASURES = {
    RATE: "bpm",
    VARIATION: "ms",
    PR: "ms",
    QRS: "ms",
    QT: "ms",
    LOST: "%",
    RMSE: "mV",
    UNLIKE: "",
    NATS: "nats",
}
DECISIVE = (RATE, VARIATION, PR, QRS, QT, LOST)  # rhythm and intervals: what the claim is about
READ = (RATE, VARIATION, PR, QRS, QT)
SECOND = int(SAMPLING_RATE)
WHOLE = 50  # samples behind a beat's steepest slope that must be there for it to be repeated: 100 ms
BESIDE = 16  # codes behind the known ones that a decoder is given, so that it does not end in silence
LEAST = 3  # beats from which a rhythm can be told
RESAMPLES = 2000


def readings(signal: Floats, first: int = 0) -> dict[str, float]:
    """What is read off samples `first` to the end: measure of `READ` -> value, NaN where it cannot be told.

    Beats are looked for in the whole signal: what is a beat is said by its size, and a second half in which nothing
    happens has none.

    Args:
        signal: (12, T) mV at 500 Hz.
    """
    from heartllm.ecg.summary import measure

    found = dict.fromkeys(READ, float("nan"))
    beats = find_beats(signal)
    rr = np.diff(beats[beats >= first]) * MS
    if len(rr) < LEAST - 1:
        return found
    found[RATE], found[VARIATION] = 60_000 / float(rr.mean()), float(rr.std())
    waves = measure(Recording(signal[:, first:].astype(np.float32), SAMPLING_RATE))
    for name, value in ((PR, waves.pr_ms), (QRS, waves.qrs_ms), (QT, waves.qt_ms)):
        found[name] = float("nan") if value is None else float(value)
    return found


def last_beats(signal: Floats) -> tuple[int, int] | None:
    """The last two beats of (12, T) mV that are there in full, as samples; None below two."""
    beats = find_beats(signal)
    beats = beats[beats + WHOLE <= signal.shape[1]]
    return (int(beats[-2]), int(beats[-1])) if len(beats) >= 2 else None


def repeat_last_beat(signal: Floats, samples: int) -> Floats | None:
    """(12, T) mV -> (12, samples) that follow if the last whole beat comes again and again at the last RR interval.

    A beat begins 40 % of the interval before its QRS, and a slow drift of its level is taken out, so that one goes over
    into the next without a jump. None where there are not two beats.
    """
    beats = last_beats(signal)
    if beats is None:
        return None
    known, interval = signal.shape[1], beats[1] - beats[0]
    begin = beats[1] - round(BEFORE * interval)
    if begin + interval > known:
        begin -= interval
    begin = max(begin, 1)
    drift = signal[:, begin + interval - 1] - signal[:, begin - 1]
    left = 1 - np.arange(1, interval + 1) / interval
    beat = signal[:, begin : begin + interval] + drift[:, None] * left
    return beat[:, (known - begin + np.arange(samples)) % interval]


def known_part(decode: Decode, codes: Integers) -> Floats:
    """(K,) codes -> (12, 16 K) mV of them alone.

    A decoder looks ahead: behind the last code it is given those of the last RR interval once more, not silence.
    """
    alone = decode(codes)
    stride = alone.shape[1] // len(codes)
    beats = last_beats(alone)
    period = len(codes) if beats is None else max(1, round((beats[1] - beats[0]) / stride))
    return decode(np.concatenate([codes, np.resize(codes[-period:], BESIDE)]))[:, : alone.shape[1]]


def reading_errors(truth: Mapping[str, float], forecast: Mapping[str, float]) -> Errors:
    """Absolute errors of `readings`, and in `LOST` 100 where only the forecast shows no rhythm (else 0)."""
    found: Errors = {}
    for name in READ:
        gap = abs(forecast[name] - truth[name])
        found[name] = None if np.isnan(gap) else float(gap)
    found[LOST] = None if np.isnan(truth[RATE]) else 100.0 * bool(np.isnan(forecast[RATE]))
    return found


def forecast_errors(truth: Floats, forecasts: Mapping[str, Floats | None], known: Floats) -> dict[str, Errors]:
    """System -> its errors, `SO_FAR` among them.

    Args:
        truth: (12, T) mV. known: (12, K) mV, its beginning.
        forecasts: system -> (12, T - K) mV, or (12, T) with its own copy of the beginning; None for no forecast.
    """
    first = known.shape[1]
    real = readings(truth, first)
    nothing = dict.fromkeys(READ, float("nan"))
    found: dict[str, Errors] = {SO_FAR: reading_errors(real, readings(known)) | {RMSE: None, UNLIKE: None}}
    for system, forecast in forecasts.items():
        if forecast is None:
            found[system] = reading_errors(real, nothing) | {RMSE: None, UNLIKE: None}
            continue
        if forecast.shape[1] < truth.shape[1]:
            forecast = np.concatenate([known, forecast], axis=1)
        soon = slice(first, first + SECOND)
        rmse, r = errors(truth[:, soon], forecast[:, soon])
        near: Errors = {RMSE: rmse, UNLIKE: None if np.isnan(r) else 1 - r}
        found[system] = reading_errors(real, readings(forecast, first)) | near
    return found


class CodeFrequencies:
    """What is expected of the next code without a language model, fitted on recordings of codes (R, N).

    `FREQUENCY` is the share of each code, one added to every count. `SAME_AGAIN` mixes it with the code before: the
    chance that a code is simply the last one again is the most likely one by expectation maximisation.
    """

    def __init__(self, codes: Integers, count: int) -> None:
        counts = np.bincount(codes.reshape(-1), minlength=count) + 1.0
        self.share: Floats = counts / counts.sum()
        same = codes[:, 1:] == codes[:, :-1]
        by_share, again = self.share[codes[:, 1:]], 0.5
        for _ in range(50):
            again = float(np.mean(again * same / (again * same + (1 - again) * by_share)))
        self.again = min(max(again, 1e-6), 1 - 1e-6)

    def nats(self, codes: Integers, first: int) -> dict[str, float]:
        """(N,) codes -> mean negative log likelihood of those from `first` on."""
        by_share = self.share[codes[first:]]
        same = codes[first:] == codes[first - 1 : -1]
        mixed = self.again * same + (1 - self.again) * by_share
        return {FREQUENCY: float(-np.log(by_share).mean()), SAME_AGAIN: float(-np.log(mixed).mean())}


def baseline_of(system: str) -> str:
    """The system that another one is held against."""
    return FREQUENCY if system in CODE_SYSTEMS else REPEAT


def summarise(recordings: Sequence[Mapping[str, Any]], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Row]:
    """A row a system and measure: its mean error, and its gain (the baseline's error less its own, where both have
    one), each with a 95 % interval by patient.

    Args:
        recordings: "patient" and "errors" (system -> measure -> error or None) of each.
    """
    rows: list[Row] = []
    for measure, unit in MEASURES.items():
        for system in CODE_SYSTEMS if measure == NATS else SYSTEMS:
            own = _column(recordings, system, measure)
            there = ~np.isnan(own)
            if not there.any():
                continue
            patients = [str(one["patient"]) for one in recordings]
            against = baseline_of(system)
            gain = _column(recordings, against, measure) - own
            value = _mean(own, patients, resamples, seed)
            better = None if system == against else _mean(gain, patients, resamples, seed)
            rows.append(
                {
                    "system": system,
                    "measure": measure,
                    "unit": unit,
                    "value": value.value if value else None,
                    "low": value.low if value else None,
                    "high": value.high if value else None,
                    "against": against,
                    "gain": better.value if better else None,
                    "gain_low": better.low if better else None,
                    "gain_high": better.high if better else None,
                    "recordings": int(there.sum()),
                    "patients": len({name for name, is_there in zip(patients, there, strict=True) if is_there}),
                    "pairs": int((~np.isnan(gain)).sum()),
                }
            )
    return rows


def _column(recordings: Sequence[Mapping[str, Any]], system: str, measure: str) -> Floats:
    """(R,) errors, NaN where there is none."""
    found = [one["errors"].get(system, {}).get(measure) for one in recordings]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _mean(values: Floats, patients: Sequence[str], resamples: int, seed: int) -> Interval | None:
    """Mean over the values that are there; None where none is."""
    kept: list[int] = np.flatnonzero(~np.isnan(values)).tolist()
    if not len(kept):
        return None
    statistics = np.stack([values[kept], np.ones(len(kept))], axis=1)
    whose = [patients[place] for place in kept]
    (found,) = bootstrap(statistics, whose, lambda sums: sums[..., :1] / sums[..., 1:], resamples=resamples, seed=seed)
    return found
