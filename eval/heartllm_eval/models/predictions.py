"""A file of predictions, made by any program: JSONL, JSON or CSV, matched by id.

    {"id": "ptbxl-17-1-03ac", "prediction": "yes"}        one a line (JSONL), in a list (JSON), or {"id": "text", ...}
    id,prediction                                          CSV with a header

A list of texts is taken as several answers. A samples.jsonl of ours is read, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm.texts import hash_file
from heartllm_eval.metrics.exact_match import join_answers
from heartllm_eval.models.base import Context, Task
from heartllm_eval.row_files import FORMAT_HELP, ID_KEYS
from heartllm_eval.row_files import rows as rows
from heartllm_eval.schema import Prediction, Request, option_scores_from_json

# Not "answer": references are called that, and a file of them, taken for predictions, would be right throughout.
TEXT_KEYS = ("prediction", "text", "output", "response", "generated_text")
LISTED = 10


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


def row_scores(row: Mapping[str, Any], place: str) -> dict[str, float] | None:
    """The likelihoods of candidate answers that a row may carry.

    Raises:
        DataError: if they are no object of finite numbers.
    """
    if row.get("option_scores") in (None, ""):
        return None
    try:
        return option_scores_from_json(row["option_scores"])
    except ValueError as error:
        raise DataError(str(error), where=place, remedy='Write {"yes": -0.1, "no": -2.4}, or leave it out.') from None


@dataclass(frozen=True)
class PredictionFile:
    """A predictions file, held against the ids that were asked for.

    Attributes:
        predictions: id -> prediction, of the ids asked for.
        missing: ids asked for that the file lacks.
        extra: the first `LISTED` ids that were not asked for; extra_count: how many rows have such ids.
    """

    predictions: dict[str, Prediction]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    extra_count: int


def listed(ids: Sequence[str], count: int | None = None) -> str:
    """ "a, b and 12 more": at most ten ids, of `count` if `ids` are only the first."""
    more = (len(ids) if count is None else count) - min(len(ids), LISTED)
    return ", ".join(ids[:LISTED]) + (f" and {more:,} more" if more else "")


def come_twice(count: int) -> str:
    """ "1 id comes twice", "12 ids come twice"."""
    return "1 id comes twice" if count == 1 else f"{count:,} ids come twice"


def read_predictions(path: Path, wanted: Collection[str]) -> PredictionFile:
    """Reads a predictions file and matches it by id; of rows that nobody asked for, ten ids and a count are kept.

    Raises:
        DataError: for broken rows, ids that come twice among those wanted, and a file of which no id is wanted.
    """
    ids = frozenset(wanted)
    found: dict[str, Prediction] = {}
    double: dict[str, None] = {}
    extra: dict[str, None] = {}
    extra_count = 0
    for place, row in rows(path):
        key = row_id(row, place)
        text = row_text(row, place)
        if key in found:
            double[key] = None
        elif key in ids:
            found[key] = Prediction(key, text, None, row_scores(row, place))
        else:
            extra_count += 1
            if len(extra) < LISTED:
                extra[key] = None
    if double:
        raise DataError(
            f"{come_twice(len(double))}: {listed(list(double))}", where=path, remedy="Keep one row for each id."
        )
    if not found and not extra_count:
        raise DataError("holds no predictions", where=path, remedy=FORMAT_HELP)
    if not found:
        raise DataError(
            ("its one id was not asked for" if extra_count == 1 else f"none of its {extra_count:,} ids was asked for")
            + (f" (it has {listed(list(extra), extra_count)})" if extra else ""),
            where=path,
            remedy="Use the ids of the references or of the run's requests.jsonl.",
        )
    return PredictionFile(found, tuple(key for key in wanted if key not in found), tuple(extra), extra_count)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check the path.") from None


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
            raise DataError(text, where=path, remedy="Add them, or leave out missing=error: they then count as wrong.")
        warn(f"{path}: {text}. They are scored as wrong.")
    if file.extra:
        ids = listed(file.extra, file.extra_count)
        warn(f"{path}: {file.extra_count:,} ids were not asked for and are left out: {ids}.")
