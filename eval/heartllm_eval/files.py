"""Scoring without a model: a predictions file against references, or a run folder once more from its samples."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from heartllm.errors import DataError, UsageError
from heartllm_eval import provenance, tables
from heartllm_eval.metrics import DEFAULT_METRICS
from heartllm_eval.models.predictions import file_hash, listed, read_predictions, report_unmatched, row_id, rows
from heartllm_eval.planning import MODEL, REQUESTS_FILE, RUN_FILE, check_continues, open_folder, write_whole
from heartllm_eval.progress import Progress
from heartllm_eval.runner import RESULTS_FILE
from heartllm_eval.samples import SAMPLES_FILE, answered
from heartllm_eval.schema import (
    Kind,
    Prediction,
    Request,
    RunRecord,
    Sample,
    cluster_id,
    dumps,
    ids_hash,
    request_from_json,
    requests_hash,
)
from heartllm_eval.scoring import Options, correct_for_many, evaluate, load_metrics, score_system

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
        raise DataError(
            f"{len(double):,} ids come twice: {listed(double)}", where=path, remedy="Keep one row for each id."
        )
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
    slices = {str(name): str(value) for name, value in dict(row.get("slices") or {}).items()}
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
        "options": [str(value) for value in _list(row.get("options") or [])],
        "template_id": int(row["template_id"]) if str(row.get("template_id", "")).isdigit() else 0,
        "derived": bool(row.get("derived", False)),
        "slices": slices,
    }
    try:
        return request_from_json(data)
    except ValueError as error:
        raise DataError(str(error), where=place, remedy=REFERENCE_HELP) from None


def _recorded(row: Mapping[str, Any], place: str) -> Request:
    try:
        return request_from_json(row)
    except ValueError as error:
        raise DataError(str(error), where=place, remedy="Run again in another folder.") from None


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


def score_predictions(
    predictions: Path,
    references: Sequence[Request],
    *,
    name: str,
    metrics: Sequence[str] = (),
    missing: str = "wrong",
    options: Options | None = None,
    sources: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
    output: Path | None = None,
    verbosity: int = 1,
) -> RunRecord:
    """Scores a predictions file.

    Args:
        predictions: JSONL, JSON or CSV.
        references: what was asked.
        name: the task's name in the record.
        metrics: names; the kind's defaults where empty.
        missing: "wrong" scores missing ids as wrong, "error" refuses them.
        options: resamples, confidence, seed.
        sources: hashes of further input files, for the record.
        about: overrides of the task's description (title, slices, primary).
        output: the folder that the record is meant for; it is tried before anything is scored.

    Raises:
        DataError, UsageError: for bad files and unknown metrics, and for a folder that cannot be written to or holds
            another run.
    """
    if missing not in ("wrong", "error"):
        raise UsageError(f"missing={missing!r}", where="--missing", remedy="Choose wrong or error.")
    say, notes, options = Progress(verbosity), cast("list[str]", []), options or Options()

    def warn(message: str) -> None:
        notes.append(message)
        say.warn(message)

    names = tuple(metrics) or DEFAULT_METRICS[references[0].kind]
    config = {
        "predictions": str(predictions),
        "metrics": list(names),
        "missing": missing,
        "requests": {name: requests_hash(references)},
    }
    if output is not None:
        open_folder(output)
        check_continues(output, config)
    file = read_predictions(predictions, [request.id for request in references])
    report_unmatched(file, predictions, missing, warn)
    task = {**describe_references(name, references), "metrics": names, "primary": names[0], **(about or {})}
    if task["cluster"] == "sample":
        warn("no patient ids in the references: intervals treat every row as a patient of its own")
    record = RunRecord(
        status="running",
        command=tuple(sys.argv),
        config=config,
        started=provenance.now(),
        versions=provenance.versions(),
        source=provenance.source(),
        hardware=provenance.hardware(),
        settings={**options.describe(), "notes": notes},
        tasks={name: task},
        systems={MODEL: {"kind": "predictions", "model": {"sha256": file_hash(predictions), **(sources or {})}}},
    )
    return _score(record, {name: list(references)}, {(name, MODEL): file.predictions}, options, say)


def read_run(
    folder: Path,
) -> tuple[dict[str, Any], dict[str, list[Request]], dict[tuple[str, str], dict[str, Prediction]]]:
    """A finished run: its record as it stands in the file, the requests by task, the answers by task and system.

    Raises:
        DataError: if the folder holds no run, or the run is not complete.
    """
    path = folder / RUN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        tasks, systems = dict(data["tasks"]), dict(data["systems"])
        dict(data["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            "not a run folder", where=path, remedy="Name a folder that heartllm-eval run has written."
        ) from None
    requests: dict[str, list[Request]] = {}
    answers: dict[tuple[str, str], dict[str, Prediction]] = {}
    for task, about in tasks.items():
        requests[task] = [_recorded(row, place) for place, row in rows(folder / task / REQUESTS_FILE)]
        if requests_hash(requests[task]) != about["requests_hash"]:
            raise DataError(
                "it is not what the run asked",
                where=folder / task / REQUESTS_FILE,
                remedy="Run again in another folder.",
            )
        for system in systems:
            found = {key: sample.prediction for key, sample in answered(folder / task / system).items()}
            lacking = sum(request.id not in found for request in requests[task])
            if lacking:
                raise DataError(
                    f"{lacking:,} samples are missing",
                    where=folder / task / system / SAMPLES_FILE,
                    remedy="Finish the run with the same command first.",
                )
            answers[task, system] = found
    return data, requests, answers


def check_run(folder: Path) -> int:
    """How many answers a finished run holds.

    Raises:
        DataError: if it is not complete, or was not finished.
    """
    data, _, answers = read_run(folder)
    if data.get("status") not in ("done", "predicted"):
        raise DataError(
            f"its status is {data.get('status')!r}",
            where=folder / RUN_FILE,
            remedy="Finish the run with the same command.",
        )
    return sum(map(len, answers.values()))


def rescore(
    folder: Path, *, options: Options | None = None, metrics: Sequence[str] = (), verbosity: int = 1
) -> RunRecord:
    """Scores a run folder once more from its samples, without any model, and writes run.json and results.md anew.

    Raises:
        DataError: if the folder holds no run or cannot be written to, or the run is not complete.
    """
    from heartllm_eval.schema import to_json

    data, requests, answers = read_run(folder)
    open_folder(folder)
    tasks, systems, settings = dict(data["tasks"]), dict(data["systems"]), dict(data["settings"])
    options = options or Options(
        int(settings["resamples"]), float(settings["confidence"]), int(settings["bootstrap_seed"])
    )
    if metrics:
        tasks = {task: {**about, "metrics": list(metrics), "primary": metrics[0]} for task, about in tasks.items()}
    known = {
        part: data[part]
        for part in ("command", "config", "started", "finished", "versions", "source", "hardware", "timing", "data")
        if part in data
    }
    known["command"] = tuple(known.get("command", ()))
    settings.update(options.describe())
    settings["rescored"] = {
        "command": list(sys.argv),
        "versions": provenance.versions(),
        "source": provenance.source(),
        "at": provenance.now(),
    }
    record = RunRecord(
        status="running", settings=to_json(settings), tasks=tasks, systems=systems, resumed=int(data.get("resumed", 0)),
        peak_memory_mb=data.get("peak_memory_mb"), **known,
    )  # fmt: skip
    record = _score(record, requests, answers, options, Progress(verbosity))
    write(record, folder)
    return record


def _score(
    record: RunRecord,
    requests: Mapping[str, Sequence[Request]],
    answers: Mapping[tuple[str, str], Mapping[str, Prediction]],
    options: Options,
    say: Progress,
) -> RunRecord:
    figures, differences, signatures = [], [], {}
    tasks = dict(record.tasks)
    for task, about in record.tasks.items():
        chosen = load_metrics(about["metrics"], say.warn)
        systems = [system for system in record.systems if (task, system) in answers]
        with say.bar(f"{task}: scoring", len(requests[task]) * len(systems)) as step:
            scored = [
                score_system(system, requests[task], answers[task, system], chosen, progress=step) for system in systems
            ]
        # A record names the primary metric as it was computed; WordNet may have come or gone since.
        asked = str(about["primary"]).replace("-nowordnet", "")
        primary = next(metric.name for name, metric in zip(about["metrics"], chosen, strict=True) if name == asked)
        tasks[task] = {**about, "primary": primary}
        result = evaluate(
            task, requests[task], scored, chosen, slices=about["slices"], compare=primary, options=options
        )
        figures += result.figures
        differences += result.differences
        signatures.update({metric.name: str(metric.signature) for metric in chosen})
    return replace(
        record,
        status="done",
        tasks=tasks,
        finished=record.finished or provenance.now(),
        figures=tuple(figures),
        differences=tuple(correct_for_many(differences)),
        signatures=signatures,
        peak_memory_mb=record.peak_memory_mb or provenance.peak_memory_mb(),
    )


def write_answers(folder: Path, task: str, requests: Sequence[Request], predictions: Path) -> None:
    """Writes what was asked and said into a folder, so that it can be scored once more, and compared, like a run.

    Raises:
        DataError: if the folder cannot be written to.
    """
    said = read_predictions(predictions, [request.id for request in requests]).predictions
    samples = folder / task / MODEL / SAMPLES_FILE
    try:
        samples.parent.mkdir(parents=True, exist_ok=True)
        with (folder / task / REQUESTS_FILE).open("w", encoding="utf-8") as stream:
            stream.writelines(f"{dumps(request)}\n" for request in requests)
        with samples.open("w", encoding="utf-8") as stream:
            for request in requests:
                lacking = Prediction(request.id, "", error="not in the predictions file")
                stream.write(f"{dumps(Sample(request, said.get(request.id, lacking)))}\n")
    except OSError as error:
        raise DataError(
            f"cannot write there ({error.strerror})", where=folder, remedy="Choose another --output_path."
        ) from None


def write(record: RunRecord, folder: Path) -> None:
    """Writes run.json and results.md.

    Raises:
        DataError: if the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / RUN_FILE, dumps(record, indent=1) + "\n")
        write_whole(folder / RESULTS_FILE, tables.markdown(record, title=shlex.join(record.command)))
    except OSError as error:
        raise DataError(
            f"cannot write there ({error.strerror})", where=folder, remedy="Choose another --output_path."
        ) from None


def _slices_of(requests: Sequence[Request]) -> list[str]:
    """Slices that break the requests into more than one part, and few enough to read."""
    return [
        name
        for name in ("question_type", "attribute_type", "sex", "age")
        if 1 < len({request.slice(name) for request in requests}) <= 20
    ]
