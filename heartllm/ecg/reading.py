"""`read_recording`: any supported file into a `Recording`, with every change noted and nothing guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from heartllm.ecg.gaps import NanPolicy, apply_nan_policy, fill_gaps
from heartllm.ecg.leads import arrange, is_ignored
from heartllm.ecg.lengths import LengthKind, LengthPolicy, fit_length
from heartllm.ecg.raw import LARGEST, RawSignal
from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
from heartllm.ecg.resampling import resample
from heartllm.ecg.units import is_millivolts, millivolts
from heartllm.errors import DataError, UsageError, absent

WFDB_SUFFIXES = (".hea", ".dat", ".mat")
SUFFIXES = (*WFDB_SUFFIXES, ".csv", ".npy")
MAX_GAP = 0.1  # seconds; longer than this a gap can hide a QRS complex

# Peak-to-peak in mV, the median over leads, beyond which the unit must be wrong: surface ECGs stay within 0.02 to 30.
_LARGEST, _SMALLEST = 60.0, 0.005
_BEYOND = 1e9  # mV; refused whatever the caller asks for: filters and float32 would make infinities of it


def read_recording(
    path: str | Path,
    *,
    target_rate: float = SAMPLING_RATE,
    length: LengthPolicy | LengthKind = "fit",
    nan_policy: NanPolicy = "refuse",
    max_gap: float = MAX_GAP,
    sampling_rate: float | None = None,
    units: str | None = None,
    lead_names: Sequence[str] | None = None,
    verify: bool = True,
    source: str = "file",
) -> Recording:
    """Reads one ECG: WFDB (.hea with .dat or CinC .mat), CSV, or npy.

    Args:
        path: the file, or its path without extension.
        target_rate: Hz; the signal is resampled to it with an anti-aliasing filter.
        length: what to do with other lengths than ten seconds; see `LengthPolicy`.
        nan_policy: "refuse" missing samples, "interpolate" gaps up to `max_gap` seconds, or "keep" them as NaN.
        sampling_rate: Hz; overrides the file's.
        units: "mV", "uV", "V"; overrides the file's.
        lead_names: one name a channel, in the file's order; overrides the file's; "ignore" leaves a channel out.
        verify: compare WFDB lengths and checksums, and refuse amplitudes that no ECG in these units has.
        source: kept in the recording.

    Returns:
        The recording: (12, T) float32 in mV, canonical order, `notes` saying what was done.

    Raises:
        DataError: for anything wrong with the file; the message names it and the remedy.
        UsageError: for an unknown policy or kind of file.
    """
    raw = read_raw(Path(path), sampling_rate=sampling_rate, units=units, lead_names=lead_names, verify=verify)
    return make_recording(
        raw,
        target_rate=target_rate,
        length=length,
        nan_policy=nan_policy,
        max_gap=max_gap,
        verify=verify,
        source=source,
    )


def read_raw(
    path: Path,
    *,
    sampling_rate: float | None = None,
    units: str | None = None,
    lead_names: Sequence[str] | None = None,
    verify: bool = True,
) -> RawSignal:
    """The channels of a file as they are stored; arguments as in `read_recording`."""
    path, suffix = _locate(path)
    if suffix in WFDB_SUFFIXES:
        from heartllm.ecg.wfdb_files import read_wfdb

        raw = read_wfdb(path.with_suffix(""), verify=verify)
    elif suffix == ".csv":
        from heartllm.ecg.tables import read_csv

        raw = read_csv(path, lead_names=lead_names)
    else:
        from heartllm.ecg.tables import read_npy

        raw = read_npy(path, lead_names=lead_names)
    return _override(raw, sampling_rate, units, lead_names)


def _locate(path: Path) -> tuple[Path, str]:
    """The file and its kind. A path without a known extension stands for the first of .hea, .csv, .npy that exists."""
    if path.suffix.lower() in SUFFIXES:
        return path, path.suffix.lower()
    if path.is_file():
        raise UsageError("unknown kind of file", where=path, remedy=f"Supported are {' '.join(SUFFIXES)}.")
    for suffix in (".hea", ".csv", ".npy"):
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            return candidate, suffix
    remedy = f"Looked for {path.name}.hea, .csv and .npy; check the path."
    raise absent(DataError("no such recording", where=path, remedy=remedy))


def _override(
    raw: RawSignal, sampling_rate: float | None, units: str | None, lead_names: Sequence[str] | None
) -> RawSignal:
    """`raw` with the caller's values in place of the file's, noted where they differ."""
    notes, names = list(raw.notes), raw.names
    if lead_names is not None:
        if len(lead_names) != len(raw.names):
            raise UsageError(
                f"{len(lead_names)} lead names for {len(raw.names)} channels",
                where=raw.path,
                remedy="Give one name a channel ('ignore' for a channel to leave out).",
            )
        names = tuple(lead_names)
    if units is not None:
        notes += [
            f"units taken as {units} instead of {old}" for old in sorted({u for u in raw.units if u and u != units})
        ]
    rate = raw.sampling_rate
    if sampling_rate is not None:
        if rate is not None and rate != sampling_rate:
            notes.append(f"sampling rate taken as {sampling_rate:g} Hz instead of the file's {rate:g} Hz")
        rate = float(sampling_rate)
    all_units = raw.units if units is None else (units,) * len(raw.names)
    return RawSignal(raw.signal, names, all_units, rate, raw.record_id, raw.path, tuple(notes))


def make_recording(
    raw: RawSignal,
    *,
    target_rate: float = SAMPLING_RATE,
    length: LengthPolicy | LengthKind = "fit",
    nan_policy: NanPolicy = "refuse",
    max_gap: float = MAX_GAP,
    verify: bool = True,
    source: str = "file",
) -> Recording:
    """Turns stored channels into a `Recording`: millivolts, leads, missing samples, rate, length, in this order.

    Arguments and errors as in `read_recording`.
    """
    if nan_policy not in get_args(NanPolicy):
        raise UsageError(
            f"unknown NaN policy {nan_policy!r}", remedy=f"Choose one of: {', '.join(get_args(NanPolicy))}."
        )
    length = LengthPolicy(length) if isinstance(length, str) else length
    where, notes = raw.path, list(raw.notes)
    if raw.sampling_rate is None:
        raise DataError("the sampling rate is not known", where=where, remedy="Pass sampling_rate=... in Hz.")
    resampled = raw.signal.size * target_rate / raw.sampling_rate if raw.sampling_rate > 0 else 0
    if not (1 <= raw.sampling_rate < 1e6) or resampled > LARGEST:  # hours in a few samples: resampled, gigabytes
        raise DataError(
            f"a sampling rate of {raw.sampling_rate:g} Hz", where=where, remedy="Pass sampling_rate=... in Hz."
        )
    signal, unit_notes = _to_millivolts(raw)
    arranged, lead_notes = arrange(signal, raw.names, where=where)
    if np.abs(arranged, where=np.isfinite(arranged), out=np.zeros_like(arranged)).max() > _BEYOND:
        raise DataError(
            f"a sample lies beyond {_BEYOND:g} mV, which no ECG and no further computation keeps",
            where=where,
            remedy="Export the recording again, or pass the right units.",
        )
    filled, gap_notes = apply_nan_policy(arranged, LEADS, raw.sampling_rate, nan_policy, max_gap, where)
    notes += [*unit_notes, *lead_notes, *gap_notes]
    if verify:
        _check_amplitude(filled, where)
    if raw.sampling_rate != target_rate:
        filled = _resample_with_gaps(filled, raw.sampling_rate, target_rate)
        notes.append(f"resampled {raw.sampling_rate:g} -> {target_rate:g} Hz")
    recording = Recording(
        np.ascontiguousarray(filled, dtype=np.float32),
        float(target_rate),
        raw.record_id,
        source,
        raw.path,
        tuple(notes),
    )
    return fit_length(recording, length)


def _to_millivolts(raw: RawSignal) -> tuple[npt.NDArray[np.floating], list[str]]:
    if raw.signal.size == 0:
        raise DataError("the recording holds no samples", where=raw.path, remedy="Fetch the file again.")
    if all(unit is not None and is_millivolts(unit) for unit in raw.units):
        return raw.signal, []
    signal, notes = raw.signal.copy(), []
    for row, (name, unit) in enumerate(zip(raw.names, raw.units, strict=True)):
        if is_ignored(name):
            continue
        if unit is None:
            raise DataError(
                f"the unit of lead {name!r} is not known", where=raw.path, remedy="Pass units='mV' (or 'uV', 'V')."
            )
        signal[row] *= millivolts(unit, where=raw.path)
        if not is_millivolts(unit):
            notes.append(f"converted from {unit} to mV")
    return signal, list(dict.fromkeys(notes))


def _check_amplitude(signal: npt.NDArray[np.floating], where: Path) -> None:
    """Refuses (12, T) mV whose amplitudes show that the unit is wrong by a factor of a thousand."""
    spans = signal.max(axis=1) - signal.min(axis=1)
    if not np.isfinite(spans).all():  # some sample is missing
        with np.errstate(invalid="ignore"):
            spans = np.nan_to_num(np.fmax.reduce(signal, axis=1) - np.fmin.reduce(signal, axis=1))
    span = float(np.median(spans))
    if span > _LARGEST or 0 < span < _SMALLEST:
        raise DataError(
            f"typical peak-to-peak amplitude {span:.3g} mV, which no ECG has; the unit in the file is probably wrong",
            where=where,
            remedy="Pass the right one (units='uV', 'mV' or 'V'), or verify=False to read it as it is.",
        )


def _resample_with_gaps(signal: npt.NDArray[np.floating], rate: float, target: float) -> npt.NDArray[np.floating]:
    """Resamples (C, T); kept missing samples stay missing at their time and do not spread through the filter."""
    missing = ~np.isfinite(signal)
    if not missing.any():
        return resample(signal, rate, target)
    result = resample(fill_gaps(signal), rate, target)
    nearest = np.minimum(np.round(np.arange(result.shape[1]) * rate / target).astype(int), signal.shape[1] - 1)
    result[missing[:, nearest]] = np.nan
    return result
