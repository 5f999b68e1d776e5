"""What the figures about the codec show, measured: rate against distortion, use of the codes, noise in against noise
out, and what is read off the copy.

Each function gives rows (dictionaries of plain values) for a CSV file; nothing is drawn here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
from heartllm.errors import DataError
from heartllm_eval.figures.codec_copies import Copier, Floats, errors, snr

if TYPE_CHECKING:
    from heartllm.codec.codec import Codec

Say = Callable[[str], object]
Row = dict[str, Any]
Samples = npt.NDArray[np.float32]
Reader = Callable[[Sequence[Samples]], Floats]  # signals -> (R, F) scores of a probe
RESAMPLES = 1000
KINDS = ("white", "muscle", "wander")
DECIBELS = (0.0, 5.0, 10.0, 20.0, 30.0)
READ = {"PR interval": "ms", "QRS duration": "ms", "QT interval": "ms", "ST level": "mV", "R amplitude": "mV",
        "frontal axis": "degrees"}  # fmt: skip


def interval(values: Sequence[float], patients: Sequence[str], statistic: str = "mean", seed: int = 0) -> list[float]:
    """95 % percentile bootstrap of the mean (or median) by patient; NaN are left out."""
    x, who = np.asarray(values, float), np.asarray(patients)
    kept = ~np.isnan(x)
    x, who = x[kept], who[kept]
    if len(x) < 2:
        return [float("nan")] * 2
    names, member = np.unique(who, return_inverse=True)
    groups = [np.flatnonzero(member == i) for i in range(len(names))]
    reduce = np.median if statistic == "median" else np.mean
    rng = np.random.default_rng(seed)
    draws = [
        float(reduce(x[np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])]))
        for _ in range(RESAMPLES)
    ]
    return [float(value) for value in np.percentile(draws, [2.5, 97.5])]


def rate_distortion(
    copiers: Sequence[Copier],
    signals: Sequence[Floats],
    patients: Sequence[str],
    *,
    kept: list[list[Samples]] | None = None,
    say: Say = lambda text: None,
) -> list[Row]:
    """A row a copier, after one for the originals: bits a second, RMSE and correlation with intervals by patient.

    Args:
        kept: gets every row's copies, for `read_by`.
    """
    if not signals:
        raise DataError("there are no recordings to measure on", remedy="Name a split that has some.")
    rows: list[Row] = []
    original = Copier("original", "", lambda signal: (signal, None))
    for copier in (original, *copiers):
        copies, bits, rmse, correlation = list[Samples](), [], [], []
        for signal in signals:
            copy, used = copier.copy(signal)
            error, r = errors(signal, copy)
            bits.append(float("nan") if used is None else used * SAMPLING_RATE / signal.shape[1])
            rmse.append(error)
            correlation.append(r)
            copies.append(copy.astype(np.float32))
        if kept is not None:
            kept.append(copies)
        low, high = interval(rmse, patients)
        r_low, r_high = interval(correlation, patients)
        rows.append(
            {
                "system": copier.system,
                "setting": copier.setting,
                "bits_per_second": _number(np.mean(bits)),
                "rmse_mv": float(np.mean(rmse)),
                "rmse_low": low,
                "rmse_high": high,
                "correlation": float(np.nanmean(correlation)),
                "correlation_low": r_low,
                "correlation_high": r_high,
                "probe_auc": None,
                "probe_low": None,
                "probe_high": None,
                "recordings": len(signals),
                "patients": len(set(patients)),
            }
        )
        say(f"{copier.system} {copier.setting}: {np.mean(rmse):.4f} mV, r {np.nanmean(correlation):.4f}")
    return rows


def read_by(
    probe: Reader, truth: Any, patients: Sequence[str], rows: Sequence[Row], kept: Sequence[Sequence[Samples]]
) -> list[Row]:
    """The rows with the macro AUC of a probe on their copies, and its interval by patient.

    Args:
        probe: reads findings off signals; it was trained on originals and never sees a copy before.
        truth: (R, F) the findings.
    """
    from heartllm.training.probe import macro_auc

    names, member = np.unique(np.asarray(patients), return_inverse=True)
    groups = [np.flatnonzero(member == i) for i in range(len(names))]
    rng = np.random.default_rng(0)
    draws = [np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]) for _ in range(300)]
    found = []
    for row, copies in zip(rows, kept, strict=True):
        scores = probe(copies)
        with warnings.catch_warnings():  # a draw in which no finding has both classes has no AUC
            warnings.simplefilter("ignore", RuntimeWarning)
            low, high = np.nanpercentile([macro_auc(scores[draw], truth[draw]) for draw in draws], [2.5, 97.5])
        auc = {"probe_auc": macro_auc(scores, truth), "probe_low": float(low), "probe_high": float(high)}
        found.append({**row, **auc})
    return found


def code_usage(codec: Codec, signals: Sequence[Floats], dataset: str) -> list[Row]:
    """A row a code, from the commonest on: its rank, its index, and its share of all codes."""
    import torch

    counts = np.zeros(codec.codes, np.int64)
    for signal in signals:
        index = codec.encode(torch.from_numpy(signal.astype(np.float32))[None])
        counts += np.bincount(index.flatten().numpy(), minlength=codec.codes)
    order = np.argsort(-counts, kind="stable")
    total = max(1, int(counts.sum()))
    return [
        {"dataset": dataset, "rank": rank + 1, "code": int(code), "share": float(counts[code] / total)}
        for rank, code in enumerate(order)
    ]


def perplexity(shares: Floats) -> float:
    """exp of the entropy in nats of (codes,) shares."""
    share = shares[shares > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def noisy(clean: Recording, kind: str, decibels: float, seed: int = 0) -> Floats:
    """(12, T) mV of the recording with noise at its electrodes, at an SNR over all leads."""
    from heartllm.ecg.perturb import parse, perturb

    return perturb(clean, [parse(f"noise={kind}:{decibels:g}dB")], seed).signal.astype(np.float64)


def denoising(
    copiers: Sequence[Copier],
    clean: Sequence[Recording],
    *,
    kinds: Sequence[str] = KINDS,
    decibels: Sequence[float] = DECIBELS,
    say: Say = lambda text: None,
) -> list[Row]:
    """SNR in against SNR out, a row each noise, SNR and copier.

    `snr_out` is of the noisy ECG's copy against the clean ECG: what is lost by copying counts as noise. `snr_kept` is
    of the noisy ECG's copy against the *clean ECG's copy*: only what came in as noise and got through counts.
    """
    copies = {copier: [copier.copy(ecg.signal.astype(np.float64))[0] for ecg in clean] for copier in copiers}
    names = [ecg.record_id for ecg in clean]
    rows: list[Row] = []
    for kind in kinds:
        for level in decibels:
            inputs = [noisy(ecg, kind, level) for ecg in clean]
            for copier in copiers:
                out, kept = [], []
                for ecg, signal, copied in zip(clean, inputs, copies[copier], strict=True):
                    copy = copier.copy(signal)[0]
                    out.append(snr(ecg.signal.astype(np.float64), copy))
                    kept.append(snr(copied, copy))
                low, high = interval(out, names)
                rows.append(
                    {
                        "noise": kind,
                        "snr_in": level,
                        "system": copier.system,
                        "setting": copier.setting,
                        "snr_out": float(np.mean(out)),
                        "snr_out_low": low,
                        "snr_out_high": high,
                        "snr_kept": float(np.mean(kept)),
                        "recordings": len(clean),
                    }
                )
            say(f"{kind} {level:g} dB")
    return rows


def readings(recording: Recording) -> dict[str, Floats]:
    """What is read off one recording: figure of `READ` -> values, NaN where it was not found; ST and R of all leads."""
    from heartllm.ecg.summary import measure

    found = measure(recording)

    def one(value: float | None) -> Floats:
        return np.array([np.nan if value is None else value])

    nothing = np.full(len(LEADS), np.nan)
    return {
        "PR interval": one(found.pr_ms),
        "QRS duration": one(found.qrs_ms),
        "QT interval": one(found.qt_ms),
        "ST level": nothing if found.st is None else found.st,
        "R amplitude": nothing if found.r is None else found.r,
        "frontal axis": one(found.axis),
    }


def reading_errors(
    copiers: Sequence[Copier],
    originals: Sequence[Recording],
    patients: Sequence[str],
    *,
    inputs: Mapping[str, Sequence[Floats]],
    dataset: str,
    say: Say = lambda text: None,
) -> list[Row]:
    """Errors of intervals, amplitudes and axis read off copies, against those read off the originals.

    Args:
        inputs: name ("as recorded", "muscle noise, 10 dB") -> what is copied, one signal a recording.
    """
    truth = [readings(recording) for recording in originals]
    rows: list[Row] = []
    for name, signals in inputs.items():
        for copier in copiers:
            read = [readings(Recording(copier.copy(signal)[0].astype(np.float32), SAMPLING_RATE)) for signal in signals]
            for figure, unit in READ.items():
                gaps, found, whose, asked = [], 0, [], 0
                for a, b, patient in zip(truth, read, patients, strict=True):
                    gap = b[figure] - a[figure]
                    if unit == "degrees":
                        gap = (gap + 180) % 360 - 180
                    there = ~np.isnan(a[figure])
                    asked, found = asked + int(there.sum()), found + int((~np.isnan(gap)).sum())
                    if not np.isnan(gap).all():
                        gaps.append(float(np.nanmedian(np.abs(gap))))
                        whose.append(patient)
                low, high = interval(gaps, whose, "median")
                rows.append(
                    {
                        "dataset": dataset,
                        "input": name,
                        "system": copier.system,
                        "setting": copier.setting,
                        "figure": figure,
                        "unit": unit,
                        "median_error": float(np.median(gaps)) if gaps else None,
                        "low": low,
                        "high": high,
                        "p90_error": float(np.percentile(gaps, 90)) if gaps else None,
                        "found": found / max(1, asked),
                        "recordings": len(originals),
                    }
                )
            say(f"{name}: {copier.system} {copier.setting}")
    return rows


def example(
    copiers: dict[str, Copier], clean: Recording, *, decibels: float, kind: str, leads: Sequence[str], seconds: float
) -> list[Row]:
    """Samples of one recording for figure 4 c, at 250 Hz: clean, noisy, and the copies of both, in mV."""
    dirty = noisy(clean, kind, decibels)
    tracks: dict[str, Floats] = {"clean": clean.signal.astype(np.float64), "noisy": dirty}
    for name, copier in copiers.items():
        tracks[f"{name} of clean"] = copier.copy(tracks["clean"])[0]
        tracks[f"{name} of noisy"] = copier.copy(dirty)[0]
    first = int(2 * SAMPLING_RATE)
    rows: list[Row] = []
    for lead in leads:
        for place in range(first, first + int(seconds * SAMPLING_RATE), 2):
            values = {name: round(float(track[LEADS.index(lead), place]), 4) for name, track in tracks.items()}
            rows.append({"lead": lead, "seconds": round((place - first) / SAMPLING_RATE, 3), **values})
    return rows


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
