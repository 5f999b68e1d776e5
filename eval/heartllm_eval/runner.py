"""A run: plan -> predict -> score -> write. It can be stopped at any moment, and the same command continues it.

OUT/run.json                        what was run, with what, on what; written first and last
OUT/results.md                      the tables
OUT/TASK/requests.jsonl             what is asked, with the references
OUT/TASK/SYSTEM/samples.jsonl       one line an answer; SYSTEM is "model" or a control
                                    (while several processes run, samples.1.jsonl, ... beside it)
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from heartllm.errors import refused
from heartllm.writing import write_whole
from heartllm_eval import processes, provenance
from heartllm_eval.asking import ask, gather
from heartllm_eval.cache import AnswerCache
from heartllm_eval.exposure import exposure, warning
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
    described,
    open_folder,
    plan,
    same_run,
    shift_of,
    systems_of,
    write_requests,
)
from heartllm_eval.progress import Progress
from heartllm_eval.requests import Workspace, other_split_note
from heartllm_eval.samples import answers_held
from heartllm_eval.schema import Prediction, Request, RunRecord, dumps, to_json
from heartllm_eval.scoring import correct_for_many, evaluate, load_metrics, score_system

RESULTS_FILE = "results.md"


@dataclass
class _State:
    spec: RunSpec
    record: RunRecord
    say: Progress
    started: float
    earlier: bytes | None
    notes: list[str] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    cached: dict[str, int] = field(default_factory=dict)
    finished: bool = False  # a repeated command that finds all of its answers: the record of the run stays meanwhile

    def save(self, **changes: Any) -> RunRecord:
        """Writes run.json anew (process 0 only); a kill leaves either the old or the new one."""
        timing = {**self.timing, "total_s": round(time.monotonic() - self.started, 3)}
        self.record = replace(self.record, timing=timing, peak_memory_mb=provenance.peak_memory_mb(), **changes)
        if self.spec.world.leads and not (self.finished and self.record.status == "running"):
            write_whole(self.spec.output / RUN_FILE, dumps(self.record, indent=1) + "\n")
        return self.record

    def warn(self, message: str) -> None:
        """Tells the user now, and the record for later."""
        if message not in self.notes:
            self.notes.append(message)
            self.say.warn(message)


def run(
    spec: RunSpec,
    adapters: Callable[[System, base.Context], base.Adapter] | None = None,
    workspace: Workspace | None = None,
) -> RunRecord:
    """Runs it, or continues it.

    Args:
        spec: what to do.
        adapters: makes the adapter of a system; by default from the registry.
        workspace: datasets that are open already; its shift is replaced by this run's.

    Raises:
        HeartLLMError: after run.json has been marked as "error". What was predicted stays.
    """
    make = adapters or (lambda system, context: base.create(system.kind, system.model_args, context))
    state = _open(spec)
    try:
        with processes.locked(spec.output, spec.world):
            return _run(state, make, workspace or Workspace(spec.data_roots))
    except AnotherRun:
        _restore(state)
        raise
    except KeyboardInterrupt:
        _end(state, "interrupted", None)
        raise
    except OSError as error:
        told = refused(error, spec.output)
        _end(state, "error", told.what)
        raise told from None
    except Exception as error:
        _end(state, "error", str(error))
        raise


def _restore(state: _State) -> None:
    """A refusal leaves the record of the run that is there."""
    if state.earlier is not None and state.spec.world.leads:
        write_whole(state.spec.output / RUN_FILE, state.earlier)


def _end(state: _State, status: Literal["error", "interrupted"], message: str | None) -> None:
    """Marks the record, if it is this run's: before the folder was checked, an earlier run's record stays."""
    if state.finished:
        return  # nothing was asked and nothing is lost: the record of the finished run holds
    if state.earlier is None or state.record.config:
        try:
            state.save(status=status, error=message, finished=provenance.now())
        except OSError:  # the disk that is full, most likely; the first error is the one to tell
            with suppress(OSError):
                _mark_in_place(state.spec.output / RUN_FILE)


def _mark_in_place(path: Path) -> None:
    """Turns "running" into "error" without needing any space: bytes that the file has already are written over."""
    running, failed = b'"status": "running"', b'"status": "error"  '
    with path.open("rb+") as stream:
        position = stream.read(200).find(running)
        if position >= 0:
            stream.seek(position)
            stream.write(failed)


def _open(spec: RunSpec) -> _State:
    open_folder(spec.output, spec.world.rank)
    path = spec.output / RUN_FILE
    earlier = path.read_bytes() if path.exists() else None
    record = RunRecord(
        status="running",
        command=spec.command or tuple(sys.argv),
        config={},
        started=provenance.now(),
        versions=provenance.versions(),
        source=provenance.source(),
        hardware=provenance.hardware(spec.device),
        settings={
            "batch_size": "auto" if spec.auto_batch else spec.batch_size,
            "world_size": spec.world.size,
            "device": spec.device,
            "data_roots": [str(root) for root in spec.data_roots],
            "cache": str(spec.cache) if spec.cache else None,
            **spec.options.describe(),
        },
    )
    return _State(spec, record, Progress(spec.verbosity if spec.world.leads else 0), time.monotonic(), earlier)


def _run(state: _State, make: Callable[[System, base.Context], base.Adapter], datasets: Workspace) -> RunRecord:
    spec, say = state.spec, state.say
    workspace = datasets.with_shift(shift_of(spec))
    planned = plan(spec, workspace)
    systems = systems_of(spec, state.warn)
    for suite in spec.suites:
        kinds = {request.question_type for request in planned[suite.name]}
        say.note(f"{suite.caption}: {len(planned[suite.name]):,} requests ({', '.join(sorted(kinds))})")
        if suite.name in workspace.other_split:
            state.warn(other_split_note(suite, workspace))
    config = to_json(configuration(spec, planned, systems))
    if spec.world.leads:
        resumed, known = check_continues(spec.output, config)
        tasks, data = describe_tasks(spec, planned, workspace), provenance.data(workspace, planned)
        _check_earlier(state, data)
        state.finished = _is_finished(state, planned, systems)
        state.save(config=config, tasks=tasks, data=data, resumed=resumed, systems=known)
        write_requests(spec.output, planned)
    else:  # not before process 0 has found the folder to be this run's
        processes.wait_for("begun", lambda: same_run(spec.output, config), spec.output)
    metrics = {
        suite.name: [] if spec.predict_only else load_metrics(suite.metric_names, state.warn) for suite in spec.suites
    }
    context = base.Context(
        workspace,
        seed=spec.seed,
        device=spec.device,
        batch_size=spec.batch_size,
        auto_batch=spec.auto_batch,
        cache=spec.cache,
        warn=state.warn,
    )
    for system in systems:
        adapter = make(system, context)
        description = to_json(adapter.describe())
        _check_description(state, system, description, workspace)
        for suite in spec.suites:
            began = time.monotonic()
            task = base.task_of(suite, planned[suite.name], workspace)
            cache = AnswerCache(spec.cache, system.kind, adapter, description, workspace)
            ask(system, adapter, task, metrics[suite.name], cache=cache, output=spec.output, world=spec.world, say=say)
            state.timing[f"{suite.name}/{system.name}_s"] = round(time.monotonic() - began, 3)
            if cache.hits:
                state.cached[f"{suite.name}/{system.name}"] = cache.hits
            state.save(hardware=provenance.hardware(spec.device))
    if not spec.world.leads:
        return state.record
    answers = {
        (suite.name, system.name): gather(suite.name, system, planned[suite.name], spec.output, state.warn)
        for system in systems
        for suite in spec.suites
    }
    settings = {**state.record.settings, "notes": state.notes, "answers_from_cache": state.cached}
    state.save(settings=settings)
    if spec.predict_only:
        return state.save(status="predicted", finished=provenance.now())
    return _score(state, planned, systems, answers, metrics)


def _check_earlier(state: _State, data: Mapping[str, Any]) -> None:
    """Holds this start against the run's earlier ones: the recordings must be theirs, and other code is told.

    Raises:
        AnotherRun: if recordings of the same ids have another content now.
    """
    before = json.loads(state.earlier) if state.earlier is not None else {}
    for name, about in data.items():
        known = dict(dict(before.get("data") or {}).get(name) or {}).get("recordings_hash")
        if known and about["recordings_hash"] and known != about["recordings_hash"]:
            raise AnotherRun(
                f"the recordings of {name} have changed since the run began",
                where=f"--output_path {state.spec.output}",
                remedy="Choose another folder, or name the first --data_root again.",
            )
    if not before.get("config"):
        return
    earlier = provenance.earlier_code(before)
    state.record = replace(state.record, settings={**state.record.settings, "earlier_code": earlier})
    if any(part.get(name) != getattr(state.record, name) for part in earlier for name in ("source", "versions")):
        state.warn("the run was begun by other code or package versions; what was answered then is not asked again")


def _is_finished(state: _State, planned: Mapping[str, Sequence[Request]], systems: Sequence[System]) -> bool:
    """Whether the run that the folder holds has ended, and all its samples are still there."""
    before = json.loads(state.earlier) if state.earlier is not None else {}
    return before.get("status") in ("done", "predicted") and all(
        answers_held(state.spec.output / task / system.name) >= len(requests)
        for task, requests in planned.items()
        for system in systems
    )


def _check_description(state: _State, system: System, description: Any, workspace: Workspace) -> None:
    if state.spec.world.leads:
        known = dict(state.record.systems.get(system.name) or {}).get("model", description)
    else:
        output = state.spec.output
        known = processes.wait_for(f"loaded {system.name}", lambda: described(output, system.name), output)
    if known != description:
        shown = "; ".join(changes(known, description)[:3])
        raise AnotherRun(
            f"{system.name} is another model than the folder's samples come from ({shown})",
            where=f"--output_path {state.spec.output}",
            remedy="Choose another folder.",
        )
    systems = {
        **state.record.systems,
        system.name: {
            "kind": system.kind,
            "model_args": dict(system.model_args),
            "model": description,
            "training": _exposures(state, description, workspace),
        },
    }
    state.save(systems=systems)


def _exposures(state: _State, description: Any, workspace: Workspace) -> dict[str, Any]:
    """Of each suite, whether the model has seen its data; nothing for models that have no `trained_on`."""
    if "trained_on" not in description:
        return {}
    found = {suite.name: exposure(suite, description["trained_on"], workspace) for suite in state.spec.suites}
    for suite in state.spec.suites:
        if told := warning(suite, found[suite.name]):
            state.warn(told)
    return dict(to_json(found))


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
    )
    text = tables.markdown(record, title=shlex.join(record.command))
    write_whole(state.spec.output / RESULTS_FILE, text)
    return record
