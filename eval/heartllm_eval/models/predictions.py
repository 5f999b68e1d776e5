"""A file of predictions, made by any program: JSONL, JSON or CSV, matched by id.

    {"id": "ptbxl-17-1-03ac", "prediction": "yes"}        one a line (JSONL), in a list (JSON), or {"id": "text", ...}
    id,prediction                                          CSV with a header

A list of texts is taken as several answers. A samples.jsonl of ours is read, too.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.metrics.exact_match import join_answers
from heartllm_eval.models.base import Context, Task
from heartllm_eval.schema import Prediction, Request

ID_KEYS = ("id", "sample_id")
TEXT_KEYS = ("prediction", "text", "answer", "output", "response", "generated_text")
FORMAT_HELP = 'A row is {"id": "...", "prediction": "..."}; see heartllm-eval validate --help.'
LISTED = 10


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSONL, JSON or CSV file as (place, row); JSONL and CSV are streamed.

    Raises:
        DataError: if the file is missing, is not text, or has a broken row; the message names the line.
    """
    try:
        if path.suffix.lower() == ".csv":
            yield from _csv_rows(path)
        elif path.suffix.lower() == ".json":
            yield from _json_rows(path)
        else:
            yield from _jsonl_rows(path)
    except FileNotFoundError:
        raise DataError("no such file", where=path, remedy="Check the path.") from None
    except IsADirectoryError:
        raise DataError("this is a folder", where=path, remedy="Name a .jsonl, .json or .csv file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})", where=path, remedy="Save the file as UTF-8.") from None
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=path, remedy="Check the file and its permissions."
        ) from None


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _object(_parse(line, place), place)


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    data = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    if isinstance(data, dict) and not any(key in data for key in ID_KEYS):
        data = [
            {"id": key, **(value if isinstance(value, dict) else {"prediction": value})} for key, value in data.items()
        ]
    if not isinstance(data, list):
        raise DataError("neither a list of rows nor an object id -> text", where=path, remedy=FORMAT_HELP)
    for number, row in enumerate(data, start=1):
        place = f"{path}, row {number}"
        yield place, _object(row, place)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
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


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not valid JSON ({error.msg}, column {error.colno})", where=place, remedy="Mend the line it names."
        ) from None
    except RecursionError:
        raise DataError("JSON nested too deep", where=place, remedy="Mend the line it names.") from None


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"a row must be an object, not {type(value).__name__}", where=place, remedy=FORMAT_HELP)
    if isinstance(value.get("request"), dict) and isinstance(value.get("prediction"), dict):  # a line of samples.jsonl
        return {**value["request"], "prediction": value["prediction"].get("text")}
    return value


def row_id(row: Mapping[str, Any], place: str) -> str:
    """The id of a row; whole numbers are taken as text.

    Raises:
        DataError: if there is none.
    """
    value = next((row[key] for key in ID_KEYS if key in row), None)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError("the row has no 'id'", where=place, remedy=FORMAT_HELP)
    return str(value)


def row_text(row: Mapping[str, Any], place: str) -> str:
    """The prediction of a row.

    Raises:
        DataError: if there is none, or it is not text.
    """
    key = next((key for key in TEXT_KEYS if key in row), None)
    if key is None:
        raise DataError("the row has no 'prediction'", where=place, remedy=FORMAT_HELP)
    value = row[key]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return join_answers(value)
    if not isinstance(value, str):
        raise DataError(
            f"{key!r} must be text, not {type(value).__name__} ({str(value)[:40]})",
            where=place,
            remedy="Write every answer as text.",
        )
    return value


@dataclass(frozen=True)
class PredictionFile:
    """A predictions file, held against the ids that were asked for."""

    predictions: dict[str, Prediction]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def listed(ids: Sequence[str]) -> str:
    """ "a, b and 12 more": at most ten ids."""
    more = f" and {len(ids) - LISTED:,} more" if len(ids) > LISTED else ""
    return ", ".join(ids[:LISTED]) + more


def read_predictions(path: Path, wanted: Collection[str]) -> PredictionFile:
    """Reads a predictions file and matches it by id.

    Raises:
        DataError: for broken rows, ids that come twice, and a file of which no id is wanted.
    """
    ids = frozenset(wanted)
    found: dict[str, Prediction] = {}
    extra: dict[str, None] = {}
    double: dict[str, None] = {}
    for place, row in rows(path):
        key = row_id(row, place)
        text = row_text(row, place)
        if key in found or key in extra:
            double[key] = None
        elif key in ids:
            found[key] = Prediction(key, text)
        else:
            extra[key] = None
    if double:
        raise DataError(
            f"{len(double):,} ids come twice: {listed(list(double))}", where=path, remedy="Keep one row for each id."
        )
    if not found:
        raise DataError(
            f"none of its {len(extra):,} ids was asked for" + (f" (it has {listed(list(extra))})" if extra else ""),
            where=path,
            remedy="Use the ids of the references or of the run's requests.jsonl.",
        )
    return PredictionFile(found, tuple(key for key in wanted if key not in found), tuple(extra))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                total.update(piece)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check the path.") from None
    return total.hexdigest()


class Predictions:
    """`--model predictions --model_args path=FILE`. Missing ids are scored as wrong (`missing=error` refuses them)."""

    def __init__(self, context: Context, *, path: str, missing: str = "wrong") -> None:
        if missing not in ("wrong", "error"):
            raise UsageError(
                f"missing={missing!r}", where="--model_args", remedy="Write missing=wrong or missing=error."
            )
        self.path, self.missing, self.warn = Path(path), missing, context.warn
        self._hash = file_hash(self.path)

    def describe(self) -> dict[str, str]:
        """The file's content."""
        return {"sha256": self._hash, "missing": self.missing}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """The file's text for each request."""
        file = read_predictions(self.path, [request.id for request in task.requests])
        report_unmatched(file, self.path, self.missing, self.warn)
        for request in requests:
            yield file.predictions.get(request.id) or Prediction(request.id, "", error="not in the predictions file")


def report_unmatched(file: PredictionFile, path: Path, missing: str, warn: Any) -> None:
    """Lists missing and extra ids; raises DataError for missing ones under `missing=error`."""
    if file.missing:
        text = f"{len(file.missing):,} ids have no prediction: {listed(file.missing)}"
        if missing == "error":
            raise DataError(text, where=path, remedy="Add them, or let them count as wrong with missing=wrong.")
        warn(f"{path}: {text}. They are scored as wrong.")
    if file.extra:
        warn(f"{path}: {len(file.extra):,} ids were not asked for and are left out: {listed(file.extra)}.")
