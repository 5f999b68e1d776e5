"""Run folders for the tests of `heartllm-eval view`: invented requests, answered by models in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from heartllm_eval.schema import Figure, Prediction, Request, RunRecord, Sample, dumps, ids_hash, requests_hash

ATTACKS = (
    "</script><script>window.ran = 1</script>",
    '<img src="x" onerror="window.ran = 2">',
    "<svg onload=window.ran=3></svg>",
    "javascript:window.ran=4",
    "-->]]><!--<iframe srcdoc='<script>parent.ran=5</script>'>",
    "@@META@@ @@SCRIPT@@ \u202eevil\u202c \x1b[31mred\x00",
)


def _write_run(
    folder: Path,
    requests: Sequence[Request],
    answer: Callable[[int, Request], str | None],
    *,
    task: str = "invented_qa",
    systems: Sequence[str] = ("model", "majority"),
    status: str = "done",
    version: int = 1,
) -> Path:
    """A run folder with these requests, answered by `answer` (None: not yet) and, by the other systems, with "no"."""
    kind = requests[0].kind
    primary = "exact_match.strict" if kind == "qa" else "rouge.heartllm"
    figure = primary if kind == "qa" else f"{primary}/rougeL"
    place = folder / task
    place.mkdir(parents=True)
    (place / "requests.jsonl").write_text("".join(dumps(request) + "\n" for request in requests), encoding="utf-8")
    for number, system in enumerate(systems):
        lines = []
        for at, request in enumerate(requests):
            text = answer(at, request) if number == 0 else "no"
            if text is None:
                continue
            right = 100.0 * (text == "; ".join(request.references))
            error = text.removeprefix("error:") if text.startswith("error:") else None
            said = Prediction(request.id, "" if error else text, error=error)
            lines.append(dumps(Sample(request, said, {figure: right, "other.figure": 12.5})) + "\n")
        (place / system).mkdir()
        (place / system / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    figures = tuple(
        Figure(task, system, figure, label, 50.0, 40.0, 60.0, len(requests), 24)
        for system in systems
        for label in ("all", *sorted({f"question_type={request.question_type}" for request in requests}))
    )
    record = RunRecord(
        status=status,  # type: ignore[arg-type]
        command=("heartllm-eval", "run", "--data_root", "/secret/place"),
        config={"seed": 0},
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00" if status == "done" else None,
        settings={"resamples": 200, "confidence": 0.95, "bootstrap_seed": 0, "notes": ["so so (first: record 77)"]},
        tasks={
            task: {
                "title": "Invented <b>questions</b>",
                "version": version,
                "kind": kind,
                "dataset": requests[0].dataset,
                "split": "test",
                "synthetic": True,
                "requests_hash": requests_hash(requests),
                "ids_hash": ids_hash(requests),
                "metrics": [primary],
                "primary": primary,
                "slices": ["question_type"],
            }
        },
        systems={system: {"kind": "echo", "model_args": {}, "model": {}} for system in systems},
        signatures={primary: f"metric:{primary}|invented"},
        figures=figures if status == "done" else (),
    )
    (folder / "run.json").write_text(json.dumps(json.loads(dumps(record))), encoding="utf-8")
    return folder


def _right_but(wrong_every: int, wrong: str = "no idea") -> Callable[[int, Request], str]:
    """Right on every request whose number is not a multiple of `wrong_every`."""
    return lambda at, request: wrong if at % wrong_every == 0 else "; ".join(request.references)


@pytest.fixture(scope="session")
def attacks() -> tuple[str, ...]:
    """Answers that would run if they were taken for markup, each setting `window.ran`."""
    return ATTACKS


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """See `_write_run`."""
    return _write_run


@pytest.fixture(scope="session")
def right_but() -> Callable[..., Callable[[int, Request], str]]:
    """See `_right_but`."""
    return _right_but
