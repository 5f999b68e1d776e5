"""CSV and npy recordings. What the file does not say about rate, leads and units, the caller must say."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.ecg.raw import RawSignal
from heartllm.errors import DataError, absent
from heartllm.texts import read_json
from heartllm.untrusted import read_array

_UNIT = re.compile(
    r"^(?P<name>.*?)\s*(?:\((?P<round>[^)]*)\)|\[(?P<square>[^\]]*)\]|_(?P<tail>mV|uV|µV|μV|nV|V|ms|s))\s*$"
)
_COMMENT = re.compile(r"#\s*(?P<key>[\w ]+?)\s*[:=]\s*(?P<value>.+?)\s*$")
_RATE_KEYS = ("samplingrate", "samplerate", "samplingfrequency", "fs", "frequency", "hz")
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
_LONGEST = 200  # characters of a name or comment that are looked at: patterns take time quadratic in them
_MISSING = {"", "nan", "na", "null", "none"}


def read_csv(path: Path, *, lead_names: Sequence[str] | None = None) -> RawSignal:
    """Reads a table with one column a lead and one row a sample.

    The first row names the leads, with the unit if wanted: `I`, `I (mV)`, `I [uV]`, `I_uV`. Comment lines before it may
    give `# sampling_rate: 500` and `# units: mV`. A column `time (s)` or `time_ms` gives the sampling rate too. Empty
    cells and `nan` are missing samples. The delimiter is a comma, a semicolon or a tab.

    Args:
        path: the file.
        lead_names: names of the columns, needed where the first row is not a header.

    Raises:
        DataError: for an empty file, cells that are no numbers, rows of different lengths, uneven times.
    """
    lines = _text(path).splitlines()
    facts: dict[str, str] = {}
    first = 0
    while first < len(lines) and (not lines[first].strip() or lines[first].lstrip().startswith("#")):
        comment = _COMMENT.match(lines[first].strip()[:_LONGEST])
        if comment:
            facts[re.sub(r"[\s_]", "", comment["key"].lower())] = comment["value"]
        first += 1
    if first == len(lines):
        raise DataError(
            "the file is empty", where=path, remedy="It needs a header row of lead names and rows of samples."
        )
    delimiter = max(",;\t", key=lines[first].count)
    header = [cell.strip() for cell in next(_split(lines[first : first + 1], delimiter, path))]
    if all(_is_number(cell) for cell in header):
        if lead_names is None:
            raise DataError(
                "the first row holds numbers, not lead names",
                where=path,
                remedy="Add a header row, or pass lead_names=[...].",
            )
        header, first = list(lead_names), first - 1
    values = _cells(lines[first + 1 :], delimiter, len(header), first + 2, path)
    names, units = zip(*(_name_and_unit(cell) for cell in header), strict=True)
    time = next((i for i, name in enumerate(names) if re.fullmatch(r"t|time(stamp)?", name.strip().lower())), None)
    rate, notes = _stated_rate(facts, path), []
    if time is not None and rate is None and units[time] in _SECONDS:
        rate = _rate_from_times(values[:, time] * _SECONDS[units[time]], header[time], path)
        notes.append(f"sampling rate {rate:g} Hz taken from the column {header[time]!r}")
    common = facts.get("units") or facts.get("unit")
    filled = tuple(unit if unit is not None else common for unit in units)
    return RawSignal(values.T.copy(), names, filled, rate, path.stem, path, tuple(notes))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise absent(DataError("no such file", where=path, remedy="Check the path.")) from None
    except UnicodeDecodeError:
        raise DataError("the file is not UTF-8 text", where=path, remedy="Save it as CSV in UTF-8.") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions.") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cells(lines: Sequence[str], delimiter: str, columns: int, first_line: int, path: Path) -> npt.NDArray[np.float64]:
    """The numbers (T, columns); `first_line` is the line number of lines[0], for messages."""
    rows = []
    for number, cells in enumerate(_split(lines, delimiter, path), start=first_line):
        if not cells or cells[0].lstrip().startswith("#"):
            continue
        if len(cells) != columns:
            raise DataError(
                f"line {number} has {len(cells)} columns, the header {columns}",
                where=path,
                remedy="Mend or delete that line.",
            )
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError:
            rows.append([_number(cell, number, path) for cell in cells])
    if not rows:
        raise DataError("the table has a header and no samples", where=path, remedy="Export the recording again.")
    return np.array(rows, dtype=np.float64)


def _split(lines: Sequence[str], delimiter: str, path: Path) -> Iterator[list[str]]:
    """The cells of each line."""
    try:
        yield from csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", where=path, remedy="Export the recording again.") from None


def _number(cell: str, line: int, path: Path) -> float:
    if cell.strip().lower() in _MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        raise DataError(
            f"line {line}: {cell.strip()[:30]!r} is not a number",
            where=path,
            remedy="Write numbers with a decimal point, and leave missing samples empty.",
        ) from None


def _name_and_unit(cell: str) -> tuple[str, str | None]:
    match = _UNIT.match(cell) if len(cell) <= _LONGEST else None
    if match is None:
        return cell, None
    return match["name"], match["round"] or match["square"] or match["tail"]


def _stated_rate(facts: dict[str, str], path: Path) -> float | None:
    stated = next((facts[key] for key in _RATE_KEYS if key in facts), None)
    if stated is None:
        return None
    number = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:hz)?", stated.lower())
    if number is None or float(number[1]) <= 0:
        raise DataError(f"the sampling rate {stated!r} is not a number of Hz", where=path, remedy="Write '# fs: 500'.")
    return float(number[1])


def _rate_from_times(times: npt.NDArray[np.float64], column: str, path: Path) -> float:
    steps = np.diff(times)
    typical = float(np.median(steps)) if len(steps) else 0.0
    if not typical > 0 or float(np.abs(steps - typical).max()) > 0.5 * typical:
        raise DataError(
            f"the times in column {column!r} are not evenly spaced", where=path, remedy="Export at one sampling rate."
        )
    # The mean step is free of the rounding of single times; recorders use whole rates.
    rate = 1.0 / float(steps.mean())
    return float(round(rate)) if abs(rate - round(rate)) < 0.01 * rate else rate


def read_npy(path: Path, *, lead_names: Sequence[str] | None = None) -> RawSignal:
    """Reads an array (12, T) or (T, 12) from `.npy`; the axis with as many entries as there are names is the leads.

    A sidecar of the same name with `.json` may say what the array cannot: `{"sampling_rate": 500, "leads": ["I", ...],
    "units": "mV"}`. Arguments of `read_recording` give or override the same. Objects are never unpickled.

    Raises:
        DataError: for a file that is no plain numeric array, unknown lead names, or a shape that does not fit them.
    """
    facts = _sidecar(path.with_suffix(".json"))
    try:
        array = read_array(path)
    except (FileNotFoundError, IsADirectoryError):
        raise absent(DataError("no such file", where=path, remedy="Check the path.")) from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        remedy = "Write it with numpy.save."
        raise DataError(f"not a plain numpy array file ({reason})", where=path, remedy=remedy) from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "iuf":
        shape = getattr(array, "shape", "?")
        raise DataError(
            f"expected a numeric array (12, T) or (T, 12), found shape {shape}",
            where=path,
            remedy="Store one recording a file.",
        )
    names = list(lead_names) if lead_names is not None else facts.get("leads")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            "the lead names are not known",
            where=path,
            remedy=f"Pass lead_names=[...], or write {path.stem}.json beside it with leads, sampling_rate and units.",
        )
    if array.shape[0] == array.shape[1] or len(names) not in array.shape:
        raise DataError(
            f"shape {array.shape} does not tell which axis holds the {len(names)} leads",
            where=path,
            remedy="Store (leads, samples), and name every channel.",
        )
    with np.errstate(invalid="ignore"):  # a NaN of odd bits
        signal = np.array(array if array.shape[0] == len(names) else array.T, dtype=np.float64, order="C")
    rate = facts.get("sampling_rate")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise DataError(f"sampling_rate {rate!r} is not a number", where=path.with_suffix(".json"), remedy="Write Hz.")
    units = facts.get("units")
    if units is not None and not isinstance(units, str):
        raise DataError(f"units {units!r} is not text", where=path.with_suffix(".json"), remedy="Write mV, uV or V.")
    return RawSignal(
        signal,
        tuple(names),
        (units,) * len(names),
        None if rate is None else float(rate),
        path.stem,
        path,
    )


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        facts = read_json(path)
    except (ValueError, OSError):
        raise DataError("not valid JSON", where=path, remedy="Write sampling_rate, leads and units into it.") from None
    unknown = set(facts) - {"sampling_rate", "leads", "units"} if isinstance(facts, dict) else {"a non-object"}
    if unknown:
        raise DataError(
            f"unknown key {sorted(unknown)[0]!r}", where=path, remedy="Known keys: sampling_rate, leads, units."
        )
    return dict(facts)
