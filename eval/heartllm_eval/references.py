"""References of any program's rows: what was asked and what is right, from JSONL, JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartllm.errors import DataError
from heartllm_eval.models.predictions import come_twice, listed, row_id
from heartllm_eval.planning import REQUESTS_FILE
from heartllm_eval.row_files import rows
from heartllm_eval.schema import Kind, Request, cluster_id, ids_hash, request_from_json, requests_hash

REFERENCE_KEYS = ("references", "reference", "answer", "answers", "report", "label", "target")
REFERENCE_HELP = 'A row is {"id": "...", "answer": ["yes"]} or {"id": "...", "report": "..."}.'


def read_references(path: Path, kind: Kind | None = None) -> list[Request]:
    """Reads references: a run's requests.jsonl, ECG-QA's own JSON, or rows with an id and an answer or a report.

    Rows may also carry question, question_type, attribute_type, template_id, options, sex, age, and patient_id (or
    cluster), without which intervals treat every row as a patient of its own.

    Raises:
        DataError: for broken rows, ids that come twice, and rows without references.
    """
    found: dict[str, Request] = {}
    double: list[str] = []
    for place, row in rows(path):
        request = _request(row, place, kind)
        if request.id in found:
            double.append(request.id)
        found[request.id] = request
    if double:
        raise DataError(f"{come_twice(len(double))}: {listed(double)}", where=path, remedy="Keep one row for each id.")
    if not found:
        raise DataError("no references", where=path, remedy=REFERENCE_HELP)
    kinds = {request.kind for request in found.values()}
    if len(kinds) > 1:
        raise DataError("questions and reports in one file", where=path, remedy="Score them one after the other.")
    return list(found.values())


def _request(row: Mapping[str, Any], place: str, kind: Kind | None) -> Request:
    key = row_id(row, place)
    name = next((name for name in REFERENCE_KEYS if name in row), None)
    if name is None:
        raise DataError("the row has no reference", where=place, remedy=REFERENCE_HELP)
    values = [row[name]] if isinstance(row[name], str) else row[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{name!r} must be text or a list of texts", where=place, remedy=REFERENCE_HELP)
    chosen = kind or row.get("kind") or ("report" if name == "report" or row.get("question_type") == "report" else "qa")
    if chosen == "report" and not values:
        raise DataError("a report needs a reference text", where=place, remedy=REFERENCE_HELP)
    cluster = row.get("cluster") or (
        cluster_id(str(row.get("dataset", "")), str(row["patient_id"])) if row.get("patient_id") else ""
    )
    given = row.get("slices") or {}
    if not isinstance(given, Mapping):
        raise DataError("'slices' must be an object", where=place, remedy='Write {"sex": "female"}, or leave it out.')
    slices = {str(name): str(value) for name, value in given.items()}
    slices.update({name: str(row[name]) for name in ("sex", "age") if name in row})
    record_ids = [str(value) for value in _list(row.get("record_ids", row.get("ecg_id", [])))]
    data = {
        **{
            name: value
            for name, value in row.items()
            if name in ("question", "question_type", "attribute_type", "dataset", "background")
        },
        "id": key,
        "kind": chosen,
        "cluster": cluster,
        "references": values,
        "record_ids": record_ids,
        "attribute": [str(value) for value in _list(row.get("attribute") or [])],
        "options": _options(row.get("options") or [], place),
        "template_id": _whole(row.get("template_id")),
        "derived": bool(row.get("derived", False)),
        "slices": slices,
    }
    try:
        return request_from_json(data)
    except ValueError as error:
        raise DataError(str(error), where=place, remedy=REFERENCE_HELP) from None


def recorded(row: Mapping[str, Any], place: str) -> Request:
    """A request as a run wrote it.

    Raises:
        DataError: if it is none.
    """
    try:
        return request_from_json(row)
    except ValueError as error:
        raise DataError(str(error), where=place, remedy="Run again in another folder.") from None


def _options(value: Any, place: str) -> list[str]:
    """The options of a row; as text, which is all that CSV holds, "yes; no"."""
    found = value.split(";") if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise DataError(
            "'options' must be a list of texts, or one text with semicolons between them",
            where=place,
            remedy='Write ["yes", "no"], or "yes; no".',
        )
    return [part.strip() for part in found if part.strip()]


def _whole(value: Any) -> int:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def task_name(references: Path) -> str:
    """What a task is called whose references come from a file: the run's task for RUN/TASK/requests.jsonl."""
    return references.resolve().parent.name if references.name == REQUESTS_FILE else references.stem


def describe_references(name: str, references: Sequence[Request]) -> dict[str, Any]:
    """What a record says of a task whose references come from a file."""
    return {
        "title": name,
        "kind": references[0].kind,
        "requests": len(references),
        "requests_hash": requests_hash(references),
        "ids_hash": ids_hash(references),
        "slices": _slices_of(references),
        "cluster": "patient" if all(request.cluster for request in references) else "sample",
    }


def _slices_of(requests: Sequence[Request]) -> list[str]:
    """Slices that break the requests into more than one part, and few enough to read."""
    return [
        name
        for name in ("question_type", "attribute_type", "sex", "age")
        if 1 < len({request.slice(name) for request in requests}) <= 20
    ]
