"""What a run would do: its requests, its systems, and whether a folder holds the beginning of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heartllm import config
from heartllm.errors import DataError, UsageError
from heartllm.launched import World
from heartllm.writing import write_whole
from heartllm_eval.requests import Workspace, build_requests, limit_requests, parse_limit
from heartllm_eval.schema import Request, dumps, ids_hash, requests_hash
from heartllm_eval.scoring import Options
from heartllm_eval.shift import Shift
from heartllm_eval.suite import Suite
from heartllm_eval.systems import MODEL as MODEL
from heartllm_eval.systems import System as System
from heartllm_eval.systems import with_controls
from heartllm_eval.unseen import SLICE, known_answers

RUN_FILE, REQUESTS_FILE = "run.json", "requests.jsonl"


@dataclass(frozen=True)
class RunSpec:
    """What the user asked for; see `heartllm-eval run --help`."""

    model: str
    suites: tuple[Suite, ...]
    output: Path
    model_args: Mapping[str, str] = field(default_factory=dict)
    data_roots: tuple[Path, ...] = ()
    limit: str | None = None
    seed: int = 0
    batch_size: int = 16
    auto_batch: bool = False
    world: World = field(default_factory=World)
    device: str = "cpu"
    cache: Path | None = None
    controls: bool = False
    control_names: tuple[str, ...] | None = None
    blind: Path | None = None
    perturb: tuple[str, ...] = ()
    predict_only: bool = False
    options: Options = field(default_factory=Options)
    verbosity: int = 1
    command: tuple[str, ...] = ()


def plan(spec: RunSpec, workspace: Workspace) -> dict[str, list[Request]]:
    """The requests of every task, after `--limit`; their recordings are those that a workspace's shift is for."""
    limit = parse_limit(spec.limit) if spec.limit is not None else None
    planned = {}
    for suite in spec.suites:
        requests = build_requests(suite, workspace)
        if SLICE in suite.slices:
            known = known_answers(suite, spec.model_args, workspace)
            workspace.answers_known_from[suite.name] = known.source
            requests = known.mark(requests)
        planned[suite.name] = requests if limit is None else limit_requests(requests, limit, spec.seed)
        workspace.ask_about(planned[suite.name])
    return planned


def shift_of(spec: RunSpec) -> Shift:
    """What `--perturb` does; its noise is drawn from the run's seed.

    Raises:
        UsageError: for a perturbation that does not exist.
    """
    return Shift.of(spec.perturb, spec.seed)


def systems_of(spec: RunSpec, warn: Callable[[str], None]) -> list[System]:
    """The model, then its controls (see `heartllm_eval.systems`)."""
    return with_controls(
        spec.model, spec.model_args, controls=spec.controls, names=spec.control_names, blind=spec.blind, warn=warn
    )


def configuration(spec: RunSpec, planned: Mapping[str, Sequence[Request]], systems: Sequence[System]) -> dict[str, Any]:
    """What decides samples and scores; a run folder is continued only by the same."""
    shifted = {"perturb": list(shift_of(spec).texts)} if spec.perturb else {}
    return {
        **shifted,
        "systems": {system.name: {"kind": system.kind, "model_args": dict(system.model_args)} for system in systems},
        "limit": spec.limit,
        "seed": spec.seed,
        "tasks": {suite.name: config.to_dict(suite) for suite in spec.suites},
        "requests": {name: requests_hash(requests) for name, requests in planned.items()},
    }


def describe_tasks(spec: RunSpec, planned: Mapping[str, Sequence[Request]], workspace: Workspace) -> dict[str, Any]:
    """What run.json says of each task.

    Args:
        spec: what is run.
        planned: the requests of each suite.
        workspace: what they were planned with; it knows what was left out.
    """
    return {
        suite.name: {
            "title": ", perturbed: ".join(filter(None, (suite.caption, ", ".join(shift_of(spec).texts)))),
            "version": suite.version,
            "kind": suite.kind,
            "dataset": suite.dataset,
            "split": suite.split,
            "synthetic": suite.synthetic,
            "derived": suite.kind == "qa" and suite.questions.source == "derived",
            "requests": len(planned[suite.name]),
            "patients": len({request.cluster or request.id for request in planned[suite.name]}),
            "recordings": len({record for request in planned[suite.name] for record in request.record_ids}),
            "requests_hash": requests_hash(planned[suite.name]),
            "ids_hash": ids_hash(planned[suite.name]),
            "metrics": suite.metric_names,
            "primary": suite.primary_metric,
            "slices": suite.slices,
            "limit": spec.limit,
            "perturb": shift_of(spec).texts,
            "zero_shot_from": suite.zero_shot_from,
            "answers_known_from": workspace.answers_known_from.get(suite.name),
            "left_out": workspace.left_out.get(suite.name, 0),
        }
        for suite in spec.suites
    }


class AnotherRun(UsageError):
    """The folder holds another run, which must stay as it is."""


def same_run(output: Path, wanted: Mapping[str, Any]) -> bool | None:
    """True when run.json tells of this very run; None while there is none yet.

    Raises:
        AnotherRun: if it tells of another.
    """
    found = _read(output).get("config")
    if found and found != wanted:
        _refuse(output, found, wanted)
    return True if found else None


def described(output: Path, system: str) -> Any:
    """What run.json says that `system` is; None while it says nothing."""
    return dict(_read(output).get("systems", {}).get(system) or {}).get("model")


def _read(output: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((output / RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def check_continues(output: Path, wanted: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """How often this folder's run was continued, this start included (0 for a fresh folder), and its systems.

    Raises:
        AnotherRun: if the folder holds a run of another configuration; the message shows the difference.
    """
    path = output / RUN_FILE
    if not path.exists():
        return 0, {}
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        before, resumed, systems = (
            dict(earlier["config"]),
            int(earlier.get("resumed", 0)),
            dict(earlier.get("systems") or {}),
        )
    except (ValueError, KeyError, TypeError, OSError):
        raise AnotherRun("not a run record", where=path, remedy="Choose another --output_path.") from None
    if before and before != wanted:
        _refuse(output, before, wanted)
    return resumed + 1, systems


def _refuse(output: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    found = changes(before, after)
    shown = "; ".join(found[:5]) + (f"; {len(found) - 5} more" if len(found) > 5 else "")
    raise AnotherRun(
        f"the folder holds another run ({shown})",
        where=f"--output_path {output}",
        remedy="Choose another folder, or repeat the first command.",
    )


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """ "limit: 10 -> 20": where two JSON objects differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = dict.fromkeys((*before, *after))
        return [
            line
            for key in keys
            for line in changes(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path}: {_shown(before)} -> {_shown(after)}"]


def _shown(value: Any) -> str:
    text = str(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):  # a hash tells enough with its beginning
        return f"{text[:8]}..."
    return text if len(text) <= 60 else f"{text[:57]}..."


def open_folder(output: Path, rank: int = 0) -> None:
    """Makes the folder and tries to write there: before anything costly is loaded.

    Raises:
        DataError: if that cannot be done.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".write-test.{rank}"
        probe.write_bytes(b"")
        probe.unlink()
        if (output / RUN_FILE).exists():
            (output / RUN_FILE).open("rb").close()
    except OSError as error:
        raise DataError(
            f"cannot write there ({error.strerror})", where=f"--output_path {output}", remedy="Choose another folder."
        ) from None


@contextmanager
def left_as_it_was(output: Path | None) -> Iterator[None]:
    """A failure inside leaves no empty folder where there was none."""
    new = [] if output is None else [part for part in (output, *output.parents) if not part.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that is not empty stays
            for part in new:
                part.rmdir()
        raise


def write_requests(output: Path, planned: Mapping[str, Sequence[Request]]) -> None:
    """Writes OUT/TASK/requests.jsonl: what any program needs to make a predictions file, and what scores it."""
    for name, requests in planned.items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / REQUESTS_FILE, "".join(dumps(request) + "\n" for request in requests))
