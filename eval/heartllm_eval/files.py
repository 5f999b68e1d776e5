"""Scoring without a model: a predictions file against references, or a run folder once more from its samples."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from heartllm.errors import DataError, UsageError
from heartllm.writing import write_lines, write_whole
from heartllm_eval import provenance, tables
from heartllm_eval.metrics import DEFAULT_METRICS
from heartllm_eval.models.predictions import file_hash, read_predictions, report_unmatched
from heartllm_eval.planning import MODEL, REQUESTS_FILE, RUN_FILE, check_continues, open_folder
from heartllm_eval.progress import Progress
from heartllm_eval.records import NO_RUN, read_json
from heartllm_eval.references import describe_references, recorded
from heartllm_eval.row_files import rows
from heartllm_eval.runner import RESULTS_FILE
from heartllm_eval.samples import SAMPLES_FILE, answered
from heartllm_eval.schema import Prediction, Request, RunRecord, Sample, dumps, requests_hash, to_json
from heartllm_eval.scoring import Options, correct_for_many, evaluate, load_metrics, score_system

OF_A_TASK = ("metrics", "primary", "slices", "requests_hash")
OF_THE_SETTINGS = ("resamples", "confidence", "bootstrap_seed")


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
        UsageError, DataError: as `read_json`, and if the run is not complete.
    """
    data = read_json(folder)
    tasks, systems = dict(data.get("tasks") or {}), dict(data.get("systems") or {})
    held = {"settings": data.get("settings") or {}, **{f"tasks.{task}": about for task, about in tasks.items()}}
    lacks = [
        f"{place}.{name}"
        for place, part in held.items()
        for name in (OF_A_TASK if place.startswith("tasks.") else OF_THE_SETTINGS)
        if name not in part
    ]
    if lacks or not tasks or not systems:
        raise DataError(f"lacks {', '.join(lacks) or 'systems or tasks'}", where=folder / RUN_FILE, remedy=NO_RUN)
    requests: dict[str, list[Request]] = {}
    answers: dict[tuple[str, str], dict[str, Prediction]] = {}
    for task, about in tasks.items():
        if not (folder / task / REQUESTS_FILE).is_file():
            raise DataError("is missing", where=folder / task / REQUESTS_FILE, remedy=NO_RUN)
        requests[task] = [recorded(row, place) for place, row in rows(folder / task / REQUESTS_FILE)]
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
        by_name = dict(zip(about["metrics"], (metric.name for metric in chosen), strict=True))
        primary = by_name.get(asked, chosen[0].name)
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

    def answer(request: Request) -> Prediction:
        return said.get(request.id, Prediction(request.id, "", error="not in the predictions file"))

    try:
        samples.parent.mkdir(parents=True, exist_ok=True)
        write_lines(folder / task / REQUESTS_FILE, (f"{dumps(request)}\n" for request in requests))
        write_lines(samples, (f"{dumps(Sample(request, answer(request)))}\n" for request in requests))
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
