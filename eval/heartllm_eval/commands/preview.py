"""`heartllm-eval run --dry-run` and `--write_out`: what would be asked, of whom, in which words, and for how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from heartllm.plain import plain

if TYPE_CHECKING:
    from heartllm_eval.models.base import Adapter, Task
    from heartllm_eval.planning import RunSpec, System
    from heartllm_eval.requests import Workspace
    from heartllm_eval.schema import Request
    from heartllm_eval.suite import Suite


def preview(spec: RunSpec, *, probe: int, prompts: bool, write: bool) -> None:
    """Prints what a run would do.

    Args:
        spec: the run.
        probe: requests to answer for an estimate of time, for each system; 0 loads no model.
        prompts: show the model's prompts, the first of each question type.
        write: write requests.jsonl of each suite to the run's folder.
    """
    from heartllm_eval.models import base
    from heartllm_eval.planning import open_folder, plan, shift_of, systems_of, write_requests
    from heartllm_eval.progress import Progress
    from heartllm_eval.requests import Workspace

    if write:
        open_folder(spec.output)
    workspace, warn = Workspace(spec.data_roots, shift_of(spec)), Progress(spec.verbosity).warn
    planned = plan(spec, workspace)
    systems = systems_of(spec, warn)
    for suite in spec.suites:
        _describe(suite, planned[suite.name], workspace)
    print(f"systems: {', '.join(f'{system.name} ({system.kind})' for system in systems)}")
    if probe or prompts:
        context = base.Context(
            workspace,
            seed=spec.seed,
            device=spec.device,
            batch_size=spec.batch_size,
            auto_batch=spec.auto_batch,
            cache=spec.cache,
            warn=warn,
        )
        training: dict[str, Callable[[], Sequence[Request]]] = {}  # built for the first that learns from it
        for system in systems if probe else systems[:1]:
            adapter = base.create(system.kind, system.model_args, context)
            for suite in spec.suites:
                task = base.task_of(suite, planned[suite.name], workspace)
                task = replace(task, training=training.setdefault(suite.name, cache(task.training)))
                if prompts and system is systems[0]:
                    _show_prompts(adapter, task)
                _count_tokens(system, adapter, task)
                if probe:
                    _estimate(system, adapter, task, probe)
    if write:
        write_requests(spec.output, planned)
        print(f"requests written to {spec.output}")


def _describe(suite: Suite, requests: Sequence[Request], workspace: Workspace) -> None:
    from heartllm_eval.requests import other_split_note

    recordings = len({record for request in requests for record in request.record_ids})
    patients = len({request.cluster or request.id for request in requests})
    print(plain(f"{suite.name}: {suite.caption}"))
    print(f"  {len(requests):,} requests on {recordings:,} recordings of {patients:,} patients, split {suite.split}")
    if suite.zero_shot_from:
        print(f"  zero-shot from {', '.join(suite.zero_shot_from)}: what controls learn from")
    if workspace.shift:
        print(f"  perturbed: {', '.join(workspace.shift.texts)}")
    left_out = workspace.left_out.get(suite.name, 0)
    if left_out:
        print(f"  left out: {left_out:,} rows of its files, whose recordings are not in the dataset")
    if suite.name in workspace.other_split:
        print(f"  {other_split_note(suite, workspace)}")
    print(f"  metrics: {', '.join(suite.metric_names)} (primary: {suite.primary_metric})")


def _show_prompts(adapter: Adapter, task: Task) -> None:
    first: dict[str, Request] = {}
    for request in task.requests:
        first.setdefault(request.question_type, request)
    say: Any = getattr(adapter, "prompt", None)
    for kind, request in first.items():
        words = say(request, task) if say else "\n".join(filter(None, (request.background, request.question)))
        print(plain(f"--- {task.name}, {kind}, {request.id}"))
        print(plain(words))
        print(plain(f"--- expected: {'; '.join(request.references)}"))


def _count_tokens(system: System, adapter: Adapter, task: Task) -> None:
    count: Any = getattr(adapter, "prompt_tokens", None)
    if count is None:
        return
    lengths = [count(request, task) for request in task.requests]
    print(
        f"{task.name}/{system.name}: {sum(lengths):,} prompt tokens, the longest prompt {max(lengths):,}; "
        f"at most {task.max_new_tokens:,} new tokens each"
    )


def _estimate(system: System, adapter: Adapter, task: Task, probe: int) -> None:
    """Answers the questions about one ECG, then those about some others, in whole groups, since a group shares the
    reading of its ECG. What is done once, such as learning from the training split, falls on the first."""
    first, *others = _some_groups(task.requests, probe)
    rest = [request for group in others for request in group]
    once = _seconds(adapter, task, first)
    each = _seconds(adapter, task, rest) / len(rest) if rest else once / len(first)
    seconds = once + each * (len(task.requests) - len(first))
    asked = len(first) + len(rest)
    print(f"{task.name}/{system.name}: about {_duration(seconds)}, by {asked} of {len(task.requests):,} requests")


def _seconds(adapter: Adapter, task: Task, requests: Sequence[Request]) -> float:
    began = time.monotonic()
    for _ in adapter.predict(requests, task):
        pass
    return time.monotonic() - began


def _some_groups(requests: Sequence[Request], wanted: int) -> list[list[Request]]:
    """At least `wanted` requests in at least two groups of those about the same ECG, where there are as many."""
    groups: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault(request.record_ids or (request.id,), []).append(request)
    keys = list(groups)
    chosen: list[list[Request]] = []
    step = max(1, len(keys) // max(2, wanted))
    for key in keys[::step]:  # from the whole of the suite, not from its beginning
        chosen.append(groups[key])
        if len(chosen) > 1 and sum(map(len, chosen)) >= wanted:
            break
    return chosen


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
