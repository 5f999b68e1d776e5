"""Rows of JSONL, JSON and CSV files, one after the other: a file may be larger than the memory.

A row may take `LARGEST_ROW` characters; nothing else of the file is held, whatever its layout. Half a character, which
JSON can hold ("\\ud83d"), becomes U+FFFD.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from heartllm.errors import DataError, absent
from heartllm.texts import mended, parse_json

ID_KEYS = ("id", "sample_id")
FORMAT_HELP = 'A row is {"id": "...", "prediction": "..."}; see heartllm-eval score --help.'
LARGEST_ROW = 1 << 24  # characters
PIECE = 1 << 16  # characters that are read at a time
_SPACE = re.compile(r"[ \t\r\n]*")


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file as (place, row).

    A line of our samples.jsonl becomes its request with the prediction's text, error and scores of options.

    Raises:
        DataError: if the file is missing, is not text, or has a broken row; the message names the line.
    """
    readers = {".csv": _csv_rows, ".json": _json_rows}
    try:
        yield from readers.get(path.suffix.lower(), _jsonl_rows)(path)
    except FileNotFoundError:
        raise absent(DataError("no such file", where=path, remedy="Check the path.")) from None
    except IsADirectoryError:
        raise absent(DataError("this is a folder", where=path, remedy="Name a .jsonl, .json or .csv file.")) from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"not UTF-8 text (byte {byte:#04x})", where=path, remedy="Save the file as UTF-8.") from None
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=path, remedy="Check the file and its permissions."
        ) from None


def _lines(stream: IO[str], path: Path) -> Iterator[str]:
    """The lines of a stream, none of them longer than a row may be."""
    number = 0
    while line := stream.readline(LARGEST_ROW + 1):
        number += 1
        if len(line) > LARGEST_ROW:
            raise _too_long(f"{path}, line {number}")
        yield line


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(_lines(stream, path), start=1):
            place = f"{path}, line {number}"
            if line.strip():
                try:
                    value = parse_json(line.rstrip())  # or the line's end would be an error's place
                except json.JSONDecodeError as error:
                    raise _broken(error.msg, error.colno, place) from None
                except ValueError as error:
                    raise DataError(
                        f"not valid JSON ({error})", where=place, remedy="Mend the line it names."
                    ) from None
                yield place, _row(value, place)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(LARGEST_ROW)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(_lines(stream, path))
        try:
            header = reader.fieldnames or ()
            if header and not set(header) & set(ID_KEYS):
                raise DataError(
                    f"the header has no 'id', only {', '.join(map(repr, header[:10]))}",
                    where=f"{path}, line 1",
                    remedy="Write a header such as id,prediction, with commas between the columns.",
                )
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(
                        "another number of columns than the header",
                        where=place,
                        remedy="Quote fields that hold commas.",
                    )
                yield place, dict(row)
        except csv.Error as error:
            raise DataError(
                f"not valid CSV ({error})", where=f"{path}, line {reader.line_num}", remedy="Mend the line it names."
            ) from None


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A list of rows, or an object id -> text or row."""
    with path.open(encoding="utf-8-sig") as stream:
        values = _Values(stream, path)
        opening = values.take("[{", "neither a list of rows nor an object id -> text")
        closing = "]" if opening == "[" else "}"
        first = True
        while not values.ends(closing, first=first):
            first = False
            if opening == "[":
                value, place = values.value(), values.place
                yield place, _row(value, place)
            else:
                key, place = values.value(), values.place
                if not isinstance(key, str) or key in ID_KEYS:
                    raise DataError("neither a list of rows nor an object id -> text", where=path, remedy=FORMAT_HELP)
                values.take(":", "not valid JSON (no colon behind a name)")
                value = values.value()
                yield place, {"id": key, **(value if isinstance(value, dict) else {"prediction": value})}
        values.finish()


class _Values:
    """JSON values taken one by one from a stream, of which only a row and a piece are held."""

    def __init__(self, stream: IO[str], path: Path) -> None:
        self.stream, self.path = stream, path
        self.text, self.position, self.line, self.ended = "", 0, 1, False
        self.decoder = json.JSONDecoder()
        self.place = str(path)

    def take(self, expected: str, otherwise: str) -> str:
        """The next character, which must be one of `expected`."""
        found = self._next()
        if not found or found not in expected:
            self.place = f"{self.path}, line {self.line}"
            raise DataError(otherwise, where=self.place, remedy=FORMAT_HELP)
        self.position += 1
        return found

    def ends(self, closing: str, *, first: bool) -> bool:
        """Takes the end, or the comma before the next value."""
        found = self._next()
        if found == closing:
            self.position += 1
            return True
        if not first:
            self.take(",", f"not valid JSON (neither a comma nor {closing} behind a value)")
        return False

    def value(self) -> Any:
        """The next value; `place` says where it begins."""
        self._next()
        self.place = f"{self.path}, line {self.line}"
        wanted = PIECE
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
                # What touches the end of the text may go on: 12 of 123.
                if end < len(self.text) or self.ended:
                    break
            except json.JSONDecodeError as error:
                # Away from the end it is no matter of what is still to be read, but for a string that goes on.
                cut = error.pos + 16 >= len(self.text) or error.msg.startswith("Unterminated string")
                if self.ended or not cut:
                    line = self.line + self.text.count("\n", self.position, error.pos)
                    raise _broken(error.msg, None, f"{self.path}, line {line}") from None
            except (ValueError, RecursionError) as error:  # the latter, and numbers of thousands of digits
                reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
                raise DataError(f"not valid JSON ({reason})", where=self.place, remedy="Mend that row.") from None
            if len(self.text) - self.position > LARGEST_ROW:
                raise _too_long(self.place)
            self._read(wanted)
            wanted *= 2  # a long row is decoded again and again, so ever larger pieces are added
        self._move(end)
        return mended(value)

    def finish(self) -> None:
        """Nothing may follow."""
        if self._next():
            raise _broken("something follows its end", None, f"{self.path}, line {self.line}")

    def _next(self) -> str:
        """The next character that is no space, "" at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.position)
            self._move(space.end() if space else self.position)
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self._read(PIECE)

    def _move(self, position: int) -> None:
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def _read(self, count: int) -> None:
        more = self.stream.read(count)
        self.ended = not more
        self.text, self.position = self.text[self.position :] + more, 0


def _row(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"a row must be an object, not {type(value).__name__}", where=place, remedy=FORMAT_HELP)
    if isinstance(value.get("request"), dict) and isinstance(value.get("prediction"), dict):  # a line of samples.jsonl
        said = value["prediction"]
        ranked = {"option_scores": said["option_scores"]} if said.get("option_scores") else {}
        return {**value["request"], "prediction": said.get("text"), **ranked}
    return value


def _broken(message: str, column: int | None, place: str) -> DataError:
    at = "" if column is None else f", column {column}"
    return DataError(f"not valid JSON ({message}{at})", where=place, remedy="Mend the line it names.")


def _too_long(place: str) -> DataError:
    return DataError(
        f"a row of more than {LARGEST_ROW:,} characters",
        where=place,
        remedy="A JSONL file has one row a line; call a list of rows .json.",
    )
