"""WFDB records: a direct reader for plain 16-bit files, the `wfdb` package for everything else.

PTB-XL, MIMIC-IV-ECG and the CinC challenges store plain interleaved 16-bit samples (the challenges behind the 24-byte
head of a MATLAB v4 file). The direct reader takes these without loading `wfdb`; tests pin it to `wfdb.rdsamp`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.ecg.leads import is_ignored
from heartllm.ecg.raw import LARGEST, RawSignal
from heartllm.ecg.wfdb_header import Header, SignalLine, read_header
from heartllm.errors import DataError

_MISSING_16 = -32768  # the WFDB value of a missing sample in format 16
_EXACT = 2**24 - 2**15  # up to here float32 holds every difference of a 16-bit sample and a baseline
_FETCH = "Fetch the record again, or pass verify=False to read it as it is."
# Bits of a sample in the formats whose size is fixed; FLAC's (508, 516, 524) is not.
_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 10, "311": 10}


def read_wfdb(stem: Path, *, verify: bool = True) -> RawSignal:
    """Reads the record whose header is `stem` + ".hea".

    Args:
        stem: path without extension.
        verify: compare lengths and the checksums that the header holds.

    Raises:
        DataError: where the header or the signal file is missing, damaged, short, or disagrees with the other.
    """
    header = read_header(stem.with_name(stem.name + ".hea"))
    _check_claim(header)
    if _is_plain_16(header):
        signal = _read_plain_16(header, verify)
        names, units = tuple(line.name for line in header.signals), tuple(line.units for line in header.signals)
        return RawSignal(signal, names, units, header.sampling_rate, stem.name, stem)
    return _read_with_wfdb(stem, header, verify)


def _is_plain_16(header: Header) -> bool:
    first = header.signals[0] if header.signals else None
    return first is not None and all(
        line.format == "16"
        and line.samples_per_frame == 1
        and line.skew == 0
        and line.file_name == first.file_name
        and line.byte_offset == first.byte_offset
        for line in header.signals
    )


def _check_claim(header: Header) -> None:
    """Holds what a header promises against the files it names, before anything is allocated for it.

    Raises:
        DataError: for more samples than a recording may have, or than its files can hold; also in its segments.
    """
    samples, lines = header.samples or 0, header.signals
    promised = samples * (sum(line.samples_per_frame for line in lines) or header.channels)
    if promised > LARGEST or max((line.skew for line in lines), default=0) > LARGEST // max(1, len(lines)):
        raise DataError(
            f"the header promises {promised:,} samples, more than a recording may have here ({LARGEST:,})",
            where=header.path,
            remedy="Cut out the part that is to be read; three hours of twelve leads at 500 Hz can be.",
        )
    for name in dict.fromkeys(line.file_name for line in lines):
        file, own = header.path.with_name(name), [line for line in lines if line.file_name == name]
        held = file.stat().st_size if file.is_file() else None  # that it is missing is told when it is read
        needed = samples * sum(_BITS.get(line.format, 0) * line.samples_per_frame for line in own) // 8
        if held is not None and not needed - 8 * len(own) <= held <= 4 * LARGEST:
            raise DataError(
                f"the file is {'short' if held < needed else 'too long'}: {held:,} bytes for {samples:,} samples "
                f"of {len(own)} signals",
                where=file,
                remedy="Fetch the record again.",
            )
    for name in header.segment_names:
        segment = read_header(header.path.with_name(f"{name}.hea"))
        if segment.segments:
            raise DataError("a segment has segments", where=segment.path, remedy="Fetch the record again.")
        _check_claim(segment)


def _read_plain_16(header: Header, verify: bool) -> npt.NDArray[np.float32]:
    """The samples (C, T) in the header's units."""
    first, channels = header.signals[0], len(header.signals)
    path = header.path.with_name(first.file_name)
    stored = memoryview(_read_bytes(path))[first.byte_offset :]
    held = len(stored) // (2 * channels)
    samples = header.samples if header.samples is not None else held
    expected = 2 * channels * samples
    if len(stored) < expected or samples == 0:
        raise DataError(
            f"the file is short: it holds {held} of {header.samples or 'some'} samples of {channels} signals",
            where=path,
            remedy="Fetch the record again.",
        )
    if verify and len(stored) > expected:
        raise DataError(
            f"the header promises {samples} samples of {channels} signals, the file holds {held}",
            where=path,
            remedy=_FETCH,
        )
    interleaved = np.frombuffer(stored, dtype="<i2", count=channels * samples).reshape(samples, channels)
    digital = np.ascontiguousarray(interleaved.T)
    if verify:
        _verify_checksums(header, digital, path)
    physical = _physical(digital, header.signals)
    if digital.min() == _MISSING_16:
        physical[digital == _MISSING_16] = np.nan
    return physical


def _physical(digital: npt.NDArray[np.int16], lines: tuple[SignalLine, ...]) -> npt.NDArray[np.float32]:
    """(sample - baseline) / gain of 16-bit samples (C, T), computed in float64 and rounded to float32.

    Where gains and differences are float32 numbers it is divided in float32, in a third of the time: a quotient that is
    rounded to float64 first becomes the same float32 (Figueroa, SIGNUM Newsletter 1995: 53 >= 2 * 24 + 2).
    """
    gain = np.array([line.gain for line in lines])[:, None]
    baseline = np.array([line.baseline for line in lines], dtype=np.float64)[:, None]
    with np.errstate(over="ignore"):  # an absurd gain: what comes of it is no finite sample
        if np.abs(baseline).max() < _EXACT and (gain.astype(np.float32) == gain).all():
            physical = digital.astype(np.float32)
            if baseline.any():
                physical -= baseline.astype(np.float32)
            physical /= gain.astype(np.float32)
            return physical
        return ((digital - baseline) / gain).astype(np.float32)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise DataError("the signal file that the header names is missing", where=path, remedy="Fetch it.") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions.") from None


def _verify_checksums(header: Header, digital: npt.NDArray[Any], path: Path) -> None:
    """Compares the 16-bit sums of the samples (C, T) with the header's, where it holds them."""
    sums = digital.sum(axis=1, dtype=np.int16 if digital.dtype == np.int16 else np.int64)  # both are right modulo 65536
    for line, total in zip(header.signals, sums, strict=True):
        if line.checksum is not None and (int(total) - line.checksum) % 65536:
            raise DataError(
                f"checksum mismatch in signal {line.name!r}: the samples are not those the header was written for",
                where=path,
                remedy=_FETCH,
            )


def _read_with_wfdb(stem: Path, header: Header, verify: bool) -> RawSignal:
    """Every other format, through the `wfdb` package."""
    for name in dict.fromkeys(line.file_name for line in header.signals):
        if not _read_bytes(header.path.with_name(name)):
            raise DataError("the file is empty", where=header.path.with_name(name), remedy="Fetch the record again.")
    import wfdb  # type: ignore[import-untyped,unused-ignore]

    plain = not header.segments and all(line.samples_per_frame == 1 and line.skew == 0 for line in header.signals)
    notes: tuple[str, ...] = () if plain else ("checksums not compared: segments, skewed signals or several rates",)
    try:
        if plain:
            record = wfdb.rdrecord(str(stem), physical=False)
            if verify:
                _verify_checksums(header, np.asarray(record.d_signal).T, header.path)
            rows = list(np.asarray(record.dac(return_res=64)).T)
        elif header.segments:
            record = wfdb.rdrecord(str(stem))
            rows = list(np.asarray(record.p_signal).T)
        else:
            record = wfdb.rdrecord(str(stem), smooth_frames=False)  # smoothing would average down to the slowest signal
            rows = [np.asarray(row) for row in record.e_p_signal]
    except (DataError, ModuleNotFoundError):
        raise
    except Exception as error:  # wfdb raises whatever it meets: ValueError, IndexError, numpy's and soundfile's errors
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"cannot be decoded ({reason})", where=header.path, remedy="Fetch the record again.") from None
    if header.segments:
        names, units = [str(name or "") for name in record.sig_name], [str(unit or "mV") for unit in record.units]
    else:  # as the header has them: the package leaves out what it does not understand
        names, units = [line.name for line in header.signals], [line.units for line in header.signals]
    keep, rate = list(range(len(rows))), float(record.fs)
    if not plain and not header.segments:
        keep = [i for i, name in enumerate(names) if not is_ignored(name)]
        per_frame = {header.signals[i].samples_per_frame for i in keep}
        if len(per_frame) != 1:
            raise DataError(
                "the leads have different sampling rates", where=header.path, remedy="Export them at one rate."
            )
        rate *= per_frame.pop()
        notes += tuple(f"channel {name!r} ignored: not one of the twelve leads" for name in names if is_ignored(name))
    return RawSignal(
        np.stack([rows[i] for i in keep]),
        tuple(names[i] for i in keep),
        tuple(units[i] for i in keep),
        rate,
        stem.name,
        stem,
        notes,
    )
