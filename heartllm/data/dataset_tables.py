"""Reading the CSV tables that datasets are published with.

Columns are found by name, so their order and any further columns do not matter. A table that lacks one, or a cell that
cannot be read, is a `DataError` that names the file, the row and the column.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from heartllm.errors import DataError
from heartllm.texts import LONGEST_NAME


def read_rows(path: Path, required: Iterable[str], *, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number in the file, row) of a table with a header; streams, so a table of any length fits.

    Raises:
        DataError: the file is missing or not text, or lacks one of the `required` columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter, restval="")
            columns = reader.fieldnames or []
            missing = [name for name in required if name not in columns]
            if missing:
                raise DataError(
                    f"the table lacks the column {missing[0]!r}",
                    remedy=f"Columns found: {', '.join(columns) or 'none'}. Take the table as published.",
                    where=path,
                )
            for row in reader:
                row.pop(None, None)  # cells beyond the header
                yield reader.line_num, row
    except FileNotFoundError:
        raise DataError(
            "the table does not exist", remedy="Is the folder laid out as the dataset was published?", where=path
        ) from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"the table cannot be read ({error})", remedy="It must be CSV in UTF-8.", where=path) from None


def number(row: Mapping[str, str], column: str, where: str) -> float | None:
    """A cell as a finite number; None where it is empty or "nan"."""
    text = (row.get(column) or "").strip()
    if not text or text.lower() == "nan":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"column {column!r} holds {text!r}, which is no number", remedy="Correct or empty the cell.", where=where
        )
    return value


def below(root: Path, row: Mapping[str, str], column: str, where: str) -> Path:
    """The path of a recording, which a cell gives relative to the data set's folder.

    Raises:
        DataError: if it is none, leads out of the folder, or is longer than a file system takes.
    """
    text = row[column].strip()
    parts = PurePosixPath(text).parts
    if not parts or text.startswith("/") or ".." in parts or "\0" in text or max(map(len, parts)) > LONGEST_NAME:
        raise DataError(
            f"column {column!r} holds {text!r}", remedy="It is a path below the dataset's folder.", where=where
        )
    return root / PurePosixPath(text)


def whole(text: str) -> str:
    """An id as text without a decimal part: "15709.0", as spreadsheets write integers, becomes "15709"."""
    text = text.strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text
