"""A run: plan -> predict -> score -> write. It can be stopped at any moment, and the same command continues it.

OUT/run.json                        what was run, with what, on what; written first and last
OUT/results.md                      the tables
OUT/TASK/requests.jsonl             what is asked, with the references
OUT/TASK/SYSTEM/samples.jsonl       one line an answer; SYSTEM is "model" or a control
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from heartllm.errors import DataError
from heartllm_eval import provenance
from heartllm_eval.metrics import needs_option_scores
from heartllm_eval.metrics.base import Metric
from heartllm_eval.models import base
from heartllm_eval.planning import (
    RUN_FILE,
    AnotherRun,
    RunSpec,
    System,
    changes,
    check_continues,
    configuration,
    describe_tasks,
    plan,
    systems_of,
    write_requests,
)
from heartllm_eval.progress import Progress
from heartllm_eval.requests import Workspace, build_requests
from heartllm_eval.samples import SAMPLES_FILE, SampleLog
from heartllm_eval.schema import Prediction, Request, RunRecord, Sample, dumps, to_json
from heartllm_eval.scoring import correct_for_many, evaluate, load_metrics, sample_statistics, score_system

RESULTS_FILE = "results.md"
MAX_FAILED_SHARE = 0.05  # of a system's samples; more is no evaluation any more


@dataclass
class _State:
    spec: RunSpec
    record: RunRecord
    say: Progress
    started: float
    earlier: bytes | None
    notes: list[str] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)

    def save(self, **changes: Any) -> RunRecord:
        """Writes run.json anew; a kill leaves either the old or the new one."""
        timing = {**self.timing, "total_s": round(time.monotonic() - self.started, 3)}
        self.record = replace(self.record, timing=timing, peak_memory_mb=provenance.peak_memory_mb(), **changes)
        part = self.spec.output / f"{RUN_FILE}.part"
        part.write_text(dumps(self.record, indent=1) + "\n", encoding="utf-8")
        part.replace(self.spec.output / RUN_FILE)
        return self.record

    def warn(self, message: str) -> None:
        """Tells the user now, and the record for later."""
        if message not in self.notes:
            self.notes.append(message)
            self.say.warn(message)


def run(spec: RunSpec, adapters: Callable[[System, base.Context], base.Adapter] | None = None) -> RunRecord:
    """Runs it, or continues it.

    Args:
        spec: what to do.
        adapters: makes the adapter of a system; by default from the registry.

    Raises:
        HeartLLMError: after run.json has been marked as "error". What was predicted stays.
    """
    make = adapters or (lambda system, context: base.create(system.kind, system.model_args, context))
    state = _open(spec)
    try:
        return _run(state, make)
    except AnotherRun:
        _restore(state)
        raise
    except KeyboardInterrupt:
        _end(state, "interrupted", None)
        raise
    except OSError as error:
        message = f"the system refused to read or write ({error.strerror or error})"
        _end(state, "error", message)
        where = error.filename or spec.output
        raise DataError(
            message, where=where, remedy="Mend that (space, permissions); the same command continues."
        ) from None
    except Exception as error:
        _end(state, "error", str(error))
        raise


def _restore(state: _State) -> None:
    """A refusal leaves the record of the run that is there."""
    if state.earlier is not None:
        (state.spec.output / RUN_FILE).write_bytes(state.earlier)


def _end(state: _State, status: Literal["error", "interrupted"], message: str | None) -> None:
    """Marks the record, if it is this run's: before the folder was checked, an earlier run's record stays."""
    if state.earlier is None or state.record.config:
        with suppress(OSError):  # the disk that is full, most likely; the first error is the one to tell
            state.save(status=status, error=message, finished=provenance.now())


def _open(spec: RunSpec) -> _State:
    try:
        spec.output.mkdir(parents=True, exist_ok=True)
        probe = spec.output / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
        path = spec.output / RUN_FILE
        earlier = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise DataError(
            f"cannot write there ({error.strerror})",
            where=f"--output_path {spec.output}",
            remedy="Choose another folder.",
        ) from None
    record = RunRecord(
        status="running",
        command=spec.command or tuple(sys.argv),
        config={},
        started=provenance.now(),
        versions=provenance.versions(),
        source=provenance.source(),
        hardware=provenance.hardware(spec.device),
        settings={
            "batch_size": spec.batch_size,
            "device": spec.device,
            "data_roots": [str(root) for root in spec.data_roots],
            "cache": str(spec.cache) if spec.cache else None,
            **spec.options.describe(),
        },
    )
    return _State(spec, record, Progress(spec.verbosity), time.monotonic(), earlier)


def _run(state: _State, make: Callable[[System, base.Context], base.Adapter]) -> RunRecord:
    spec, say = state.spec, state.say
    workspace = Workspace(spec.data_roots)
    planned = plan(spec, workspace)
    systems = systems_of(spec, state.warn)
    for suite in spec.suites:
        kinds = {request.question_type for request in planned[suite.name]}
        say.note(f"{suite.caption}: {len(planned[suite.name]):,} requests ({', '.join(sorted(kinds))})")
    config = to_json(configuration(spec, planned, systems))
    resumed, known = check_continues(spec.output, config)
    state.save(config=config, tasks=describe_tasks(spec, planned), resumed=resumed, systems=known)
    write_requests(spec.output, planned)
    metrics = {suite.name: [] if spec.predict_only else load_metrics(suite.metric_names) for suite in spec.suites}
    context = base.Context(workspace, spec.seed, spec.device, spec.batch_size, spec.cache, state.warn)
    answers: dict[tuple[str, str], dict[str, Prediction]] = {}
    for system in systems:
        adapter = make(system, context)
        _check_description(state, system, to_json(adapter.describe()))
        for suite in spec.suites:
            began = time.monotonic()
            requests = planned[suite.name]
            task = base.Task(
                suite.name,
                suite.kind,
                requests,
                suite.generation.max_new_tokens,
                lambda suite=suite: build_requests(suite, workspace, split=suite.train_split),  # type: ignore[misc]
                needs_option_scores(suite.metric_names),
            )
            answers[suite.name, system.name] = _predict(state, system, adapter, task, metrics[suite.name])
            state.timing[f"{suite.name}/{system.name}_s"] = round(time.monotonic() - began, 3)
            state.save(hardware=provenance.hardware(spec.device))
    if spec.predict_only:
        return state.save(status="predicted", finished=provenance.now())
    return _score(state, planned, systems, answers, metrics)


def _check_description(state: _State, system: System, description: Any) -> None:
    known = dict(state.record.systems.get(system.name) or {}).get("model", description)
    if known != description:
        shown = "; ".join(changes(known, description)[:3])
        raise AnotherRun(
            f"{system.name} is another model than the folder's samples come from ({shown})",
            where=f"--output_path {state.spec.output}",
            remedy="Choose another folder.",
        )
    systems = {
        **state.record.systems,
        system.name: {"kind": system.kind, "model_args": dict(system.model_args), "model": description},
    }
    state.save(systems=systems)


def _predict(
    state: _State, system: System, adapter: base.Adapter, task: base.Task, metrics: Sequence[Metric]
) -> dict[str, Prediction]:
    """Asks what is not answered yet; every answer is on disk before the next is taken."""
    wanted = {request.id: request for request in task.requests}
    with SampleLog(state.spec.output / task.name / system.name / SAMPLES_FILE) as log:
        pending = [request for request in task.requests if request.id not in log.done]
        if len(pending) < len(wanted):
            state.say.note(
                f"{task.name}/{system.name}: {len(wanted) - len(pending):,} of {len(wanted):,} are already answered"
            )
        if pending:
            open_ids = {request.id for request in pending}
            with state.say.bar(f"{task.name}/{system.name}", len(pending)) as step:
                for prediction in adapter.predict(pending, task):
                    if prediction.id not in open_ids:
                        raise DataError(
                            f"answered {prediction.id!r} twice or unasked",
                            where=f"model {system.kind}",
                            remedy="Correct the adapter.",
                        )
                    open_ids.discard(prediction.id)
                    log.append(_sample(wanted[prediction.id], prediction, metrics))
                    step()
            if open_ids:
                raise DataError(
                    f"left {len(open_ids):,} requests unanswered",
                    where=f"model {system.kind}",
                    remedy="Correct the adapter.",
                )
        found = {key: sample.prediction for key, sample in log.done.items() if key in wanted}
    _count_failures(state, system, task, list(found.values()))
    return found


def _sample(request: Request, prediction: Prediction, metrics: Sequence[Metric]) -> Sample:
    scores: dict[str, float] = {}
    for metric in metrics:
        scores.update(metric.sample_scores(sample_statistics(metric, prediction, request)))
    return Sample(request, prediction, scores)


def _count_failures(state: _State, system: System, task: base.Task, predictions: Sequence[Prediction]) -> None:
    failed = [prediction for prediction in predictions if prediction.error]
    if failed:
        state.warn(
            f"{task.name}/{system.name}: {len(failed):,} of {len(predictions):,} requests have no answer and count as "
            f"wrong (first: {failed[0].error})"
        )
    if system.kind != "predictions" and len(failed) > MAX_FAILED_SHARE * len(predictions):
        raise DataError(
            f"{len(failed):,} of {len(predictions):,} requests failed; the first: {failed[0].error}",
            where=f"{task.name}/{system.name}",
            remedy=f"Mend the data; at most {MAX_FAILED_SHARE:.0%} may fail.",
        )


def _score(
    state: _State,
    planned: Mapping[str, Sequence[Request]],
    systems: Sequence[System],
    answers: Mapping[tuple[str, str], Mapping[str, Prediction]],
    metrics: Mapping[str, Sequence[Metric]],
) -> RunRecord:
    from heartllm_eval import tables

    began = time.monotonic()
    figures, differences, signatures = [], [], {}
    for suite in state.spec.suites:
        requests, chosen = planned[suite.name], metrics[suite.name]
        with state.say.bar(f"{suite.name}: scoring", len(requests) * len(systems)) as step:
            scored = [
                score_system(system.name, requests, answers[suite.name, system.name], chosen, progress=step)
                for system in systems
            ]
        primary = next(
            metric.name for name, metric in zip(suite.metric_names, chosen, strict=True) if name == suite.primary_metric
        )
        result = evaluate(
            suite.name, requests, scored, chosen, slices=suite.slices, compare=primary, options=state.spec.options
        )
        figures += result.figures
        differences += result.differences
        signatures.update({metric.name: str(metric.signature) for metric in chosen})
    state.timing["score_s"] = round(time.monotonic() - began, 3)
    record = state.save(
        status="done",
        finished=provenance.now(),
        figures=tuple(figures),
        differences=tuple(correct_for_many(differences)),
        signatures=signatures,
        settings={**state.record.settings, "notes": state.notes},
    )
    text = tables.markdown(record, title=shlex.join(record.command))
    (state.spec.output / RESULTS_FILE).write_text(text, encoding="utf-8")
    return record
