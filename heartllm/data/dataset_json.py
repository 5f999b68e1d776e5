"""Reading JSON tables (lists of objects) with errors that name the file, the row and the field."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from heartllm.errors import DataError
from heartllm.texts import read_json
from heartllm.writing import write_lines

T = TypeVar("T")


def json_files(path: str | Path) -> list[Path]:
    """The .json files that a file, a folder (searched in depth) or a glob pattern stands for, sorted."""
    path = Path(path)
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.json")) if path.is_dir() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    files = [file for file in found if file.is_file()]
    if not files:
        raise DataError(
            "no JSON file is here", remedy="Pass a file, a folder with .json files, or a pattern.", where=path
        )
    return files


def load_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list.

    Raises:
        DataError: not readable, not JSON, not a list, or a row that is no object.
    """
    try:
        rows = read_json(path)
    except OSError as error:
        raise DataError(
            f"the file cannot be read ({error.strerror})", remedy="Check the path and its permissions.", where=path
        ) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(
            f"this is no valid JSON ({error})", remedy="Fetch or write the file again.", where=path
        ) from None
    if not isinstance(rows, list):
        raise DataError("the file holds no list of rows", remedy="It must be a JSON list of objects.", where=path)
    for index, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"row {index} is no object", remedy="Each row is a JSON object.", where=path)
    return rows


def save_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes a JSON list, one row a line, in one step: the file is either the old or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def lines() -> Iterator[str]:
        separator = "[\n"
        for row in rows:
            yield separator + json.dumps(row, ensure_ascii=False)
            separator = ",\n"
        yield "[]\n" if separator == "[\n" else "\n]\n"

    write_lines(path, lines())


class Row:
    """Typed access to the fields of one row; `number` counts from 1."""

    def __init__(self, fields: Mapping[str, Any], path: Path, number: int) -> None:
        self.fields, self.path, self.number = fields, path, number

    def error(self, field: str, what: str, remedy: str) -> DataError:
        """The error to raise for one field of this row."""
        return DataError(what, remedy=remedy, where=f"{self.path}, row {self.number}, field {field!r}")

    def get(self, field: str, kind: type[T], expected: str) -> T:
        """A field that must be there and of this type (a bool is no int)."""
        if field not in self.fields:
            raise self.error(field, "the field is missing", f"Each row needs it; it is {expected}.")
        value = self.fields[field]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(field, f"{value!r:.60} is not {expected}", f"Make it {expected}.")
        return value

    def integer(self, field: str) -> int:
        """An integer field."""
        return self.get(field, int, "an integer")

    def text(self, field: str, choices: Sequence[str] = ()) -> str:
        """A text field that is not blank, and one of `choices` where they are given."""
        value = self.get(field, str, "a text")
        if not value.strip():
            raise self.error(field, "the text is empty", "Give a text.")
        if choices and value not in choices:
            raise self.error(field, f"{value!r:.60} is unknown", f"Choose one of: {', '.join(choices)}.")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self.get(field, list, "a list of texts")
        if not all(isinstance(value, str) for value in values):
            raise self.error(field, f"{values!r:.60} is not a list of texts", "Make it a list of texts.")
        return tuple(values)

    def ids(self, field: str) -> tuple[str, ...]:
        """One id or a list of ids (integers or texts), as text."""
        values = self.get(field, object, "an id or a list of ids")
        listed = values if isinstance(values, list) else [values]
        ids = []
        for value in listed:
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
                raise self.error(field, f"{value!r:.60} is no id", "An id is an integer or a text.")
            ids.append(str(value))
        return tuple(ids)


def id_to_json(record_id: str) -> int | str:
    """An id as ECG-QA writes it: an integer where it is one."""
    return (
        int(record_id)
        if record_id.isascii() and record_id.isdigit() and str(int(record_id)) == record_id
        else record_id
    )
