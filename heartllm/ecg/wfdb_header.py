"""WFDB header files (.hea), read strictly: a header that is not understood is an error and never a default.

Source: the header file format of the WFDB applications guide (header(5)): a record line, then one line a signal
`FILE FORMATxSPF:SKEW+OFFSET GAIN(BASELINE)/UNITS ADC_RES ADC_ZERO INITIAL CHECKSUM BLOCK_SIZE DESCRIPTION`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from heartllm.errors import DataError, absent
from heartllm.texts import LONGEST_NAME

_FORMAT = re.compile(
    r"(?P<format>[0-9]{1,3})(?:x(?P<per_frame>[0-9]{1,18}))?(?::(?P<skew>[0-9]{1,18}))?(?:\+(?P<offset>[0-9]{1,18}))?"
)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_GAIN = re.compile(rf"(?P<gain>{_NUMBER})(?:\((?P<baseline>[+-]?[0-9]{{1,18}})\))?(?:/(?P<units>\S+))?")
_RATE = re.compile(rf"(?P<rate>{_NUMBER})(?:/.*)?")
_LONGEST_LINE = 1024  # characters
_OTHER_LINES = 100  # that are no comments, behind the signals: some programs write such
_REMEDY = "Fetch the header file again; it is damaged or no WFDB header."


@dataclass(frozen=True)
class SignalLine:
    """One signal of a header. `units` is mV where the header gives none, as the format defines."""

    file_name: str
    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    units: str
    initial_value: int | None
    checksum: int | None
    name: str


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        segments: 0 for a plain record. segment_names: those with samples; gaps ("~") and the layout have none.
        samples: None where the header does not say.
    """

    path: Path
    record_name: str
    segments: int
    sampling_rate: float
    samples: int | None
    signals: tuple[SignalLine, ...]
    segment_names: tuple[str, ...] = ()
    channels: int = 0


def read_header(path: Path) -> Header:
    """Reads the header file `path`.

    Raises:
        DataError: where it is missing, empty, or does not follow the format; the message names file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        remedy = "Check the path; a record needs its .hea file."
        raise absent(DataError("no such header file", where=path, remedy=remedy)) from None
    except UnicodeDecodeError:
        raise DataError("the header is not text", where=path, remedy=_REMEDY) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions.") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise DataError("the header is empty", where=path, remedy=_REMEDY)
    longest = max(map(len, lines))
    if longest > _LONGEST_LINE:
        raise DataError(f"the header has a line of {longest:,} characters", where=path, remedy=_REMEDY)
    name, segments, count, rate, samples = _record_line(lines[0], path)
    if segments:
        return Header(path, name, segments, rate, samples, (), _segment_names(lines[1:], segments, path), count)
    if count < 1 or not count <= len(lines) - 1 <= count + _OTHER_LINES:
        raise DataError(
            f"the header promises {count} signals and describes {len(lines) - 1}", where=path, remedy=_REMEDY
        )
    signals = tuple(_signal_line(line, path) for line in lines[1 : count + 1])
    return Header(path, name, 0, rate, samples, signals, channels=count)


def _segment_names(lines: Sequence[str], count: int, path: Path) -> tuple[str, ...]:
    """The headers that the lines "NAME SAMPLES" of a record in segments name, each once."""
    if count > len(lines):
        raise DataError(f"the header promises {count} segments and describes {len(lines)}", where=path, remedy=_REMEDY)
    names: dict[str, None] = {}
    for line in lines[:count]:
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdecimal():
            raise DataError(f"the segment line {line.strip()[:60]!r} is not valid", where=path, remedy=_REMEDY)
        _check_name("segment", fields[0], path)
        if fields[0] != "~" and int(fields[1][:18]) > 0:
            names[fields[0]] = None
    return tuple(names)


def _check_name(what: str, name: str, path: Path) -> None:
    """Refuses a name that is no file's, or that of a file in another folder."""
    if "\0" in name or len(name.encode()) > LONGEST_NAME:
        raise DataError(f"the name of the {what} is not valid", where=path, remedy=_REMEDY)
    if name != Path(name).name:
        raise DataError(f"the {what} {name!r} lies in another folder", where=path, remedy=_REMEDY)


def _record_line(line: str, path: Path) -> tuple[str, int, int, float, int | None]:
    fields = line.split()
    name, _, segments = fields[0].partition("/")
    try:
        count = int(fields[1])
        rate_match = _RATE.fullmatch(fields[2])
        rate = float(rate_match["rate"]) if rate_match else 0.0
        samples = int(fields[3]) if len(fields) > 3 else None
        n_segments = int(segments) if segments else 0
    except (IndexError, ValueError):
        raise DataError(f"the record line {line.strip()[:60]!r} is not valid", where=path, remedy=_REMEDY) from None
    if rate <= 0:
        raise DataError(f"the sampling rate {fields[2]!r} is not a positive number", where=path, remedy=_REMEDY)
    return name, n_segments, count, rate, samples or None


# The lines of a file, and of a dataset's files, have the same format and gain.
_format = lru_cache(maxsize=256)(_FORMAT.fullmatch)
_calibration = lru_cache(maxsize=256)(_GAIN.fullmatch)


def _signal_line(line: str, path: Path) -> SignalLine:
    fields = line.split(maxsplit=8)
    storage = _format(fields[1]) if len(fields) > 1 else None
    calibration = _calibration(fields[2]) if len(fields) > 2 else None
    try:
        numbers = [int(field) for field in fields[3:8]]
    except ValueError:
        numbers = None
    if storage is None or numbers is None or (len(fields) > 2 and calibration is None):
        raise DataError(f"the signal line {line.strip()[:80]!r} is not valid", where=path, remedy=_REMEDY)
    name = fields[8].strip() if len(fields) > 8 else ""
    gain = float(calibration["gain"]) if calibration else 0.0
    if calibration is None or gain == 0:
        raise DataError(
            f"signal {name or fields[0]!r} is uncalibrated (no gain)",
            where=path,
            remedy="Write its gain (steps per mV) into the header.",
        )
    _check_name("signal file", fields[0], path)
    adc_zero = numbers[1] if len(numbers) > 1 else 0
    return SignalLine(
        file_name=fields[0],
        format=storage["format"],
        samples_per_frame=int(storage["per_frame"] or 1),
        skew=int(storage["skew"] or 0),
        byte_offset=int(storage["offset"] or 0),
        gain=gain,
        baseline=int(calibration["baseline"]) if calibration["baseline"] is not None else adc_zero,
        units=calibration["units"] or "mV",
        initial_value=numbers[2] if len(numbers) > 2 else None,
        checksum=numbers[3] if len(numbers) > 3 else None,
        name=name,
    )
