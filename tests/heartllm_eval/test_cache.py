from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm_eval import provenance
from heartllm_eval.cache import AnswerCache
from heartllm_eval.models import base
from heartllm_eval.planning import RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.runner import run
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.suite import Reader
from heartllm_eval.testing import Echo, invented_requests

REQUESTS = invented_requests("test", patients=3)
TASK = base.Task("invented_qa", "qa", REQUESTS)


class Hashes(Workspace):
    """Recordings that are there, with the content that `content` says."""

    def __init__(self, content: str = "a") -> None:
        super().__init__()
        self.content = content

    def recording_hash(self, name: str, record_id: str) -> str:
        return f"{self.content}{name}{record_id}"


class Cached(Echo):
    answers_version: int | None = 1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fingerprint = "f"

    def describe(self) -> Mapping[str, Any]:
        return {"fingerprint": self.fingerprint}


def cache(folder: Path | None, adapter: Echo, workspace: Workspace | None = None, kind: str = "echo") -> AnswerCache:
    return AnswerCache(folder, kind, adapter, adapter.describe(), workspace or Hashes())


def fill(folder: Path) -> None:
    with cache(folder, Cached()) as store:
        for request in REQUESTS:
            store.keep(request, TASK, Prediction(request.id, f"to {request.id}"))


def test_answers_are_found_again(tmp_path: Path) -> None:
    fill(tmp_path)
    with cache(tmp_path, Cached()) as store:
        assert [store.find(request, TASK) for request in REQUESTS] == [
            Prediction(request.id, f"to {request.id}") for request in REQUESTS
        ]
        assert store.hits == len(REQUESTS)


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Another?"},
        {"background": "Age: 4 years."},
        {"options": ("a", "b")},
        {"record_ids": ("other",)},
        {"dataset": "mimic"},
        {"kind": "report"},
    ],
)
def test_whatever_the_model_sees_decides(tmp_path: Path, change: dict[str, Any]) -> None:
    fill(tmp_path)
    with cache(tmp_path, Cached()) as store:
        assert store.find(replace(REQUESTS[0], **change), TASK) is None


def test_what_the_model_does_not_see_does_not_decide(tmp_path: Path) -> None:
    fill(tmp_path)
    with cache(tmp_path, Cached()) as store:
        other = replace(REQUESTS[0], references=("no",), cluster="x", slices={}, id="another id")
        found = store.find(other, TASK)
        assert found == Prediction("another id", f"to {REQUESTS[0].id}")


def test_another_model_generation_or_recording_of_the_same_name_is_asked(tmp_path: Path) -> None:
    fill(tmp_path)
    changed, newer = Cached(), Cached()
    changed.fingerprint = "g"
    newer.answers_version = 2
    for store, task in (
        (cache(tmp_path, changed), TASK),
        (cache(tmp_path, newer), TASK),
        (cache(tmp_path, Cached(), kind="other"), TASK),
        (cache(tmp_path, Cached(), Hashes("b")), TASK),
        (cache(tmp_path, Cached()), replace(TASK, max_new_tokens=3)),
        (cache(tmp_path, Cached()), replace(TASK, reader=Reader(length="crop"))),
        (cache(tmp_path, Cached()), replace(TASK, score_options=True)),
    ):
        with store:
            assert store.find(REQUESTS[0], task) is None


@pytest.mark.parametrize(("name", "value"), [("code_hash", "edited"), ("versions", {"torch": "99"})])
def test_another_program_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str | dict[str, str]
) -> None:
    fill(tmp_path)
    monkeypatch.setattr(provenance, name, lambda: value)
    with cache(tmp_path, Cached()) as store:
        assert store.find(REQUESTS[0], TASK) is None


def test_failures_and_models_without_a_version_are_not_kept(tmp_path: Path) -> None:
    with cache(tmp_path, Cached()) as store:
        store.keep(REQUESTS[0], TASK, Prediction(REQUESTS[0].id, "", error="no answer"))
    with cache(tmp_path, Echo()) as store:
        store.keep(REQUESTS[0], TASK, Prediction(REQUESTS[0].id, "yes"))
    with cache(None, Cached()) as store:
        store.keep(REQUESTS[0], TASK, Prediction(REQUESTS[0].id, "yes"))
        assert store.find(REQUESTS[0], TASK) is None
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_broken_lines_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path)
    (file,) = tmp_path.rglob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    bad = json.dumps({**json.loads(lines[1]), "option_scores": {"yes": "high"}}).encode() + b"\n"
    file.write_bytes(b"".join([b"\xff\xfe{\n", b"[]\n", bad, *lines[2:-1], lines[-1][:20]]))
    with cache(tmp_path, Cached()) as store:
        found = [store.find(request, TASK) is not None for request in REQUESTS]
    assert found == [False, False, *[True] * (len(REQUESTS) - 3), False]


def test_a_second_run_asks_nothing(spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workspace, "recording_hash", lambda self, name, record: f"{name}{record}")

    class Whole(Cached):
        def predict(self, requests: Sequence[Request], task: base.Task) -> Iterator[Prediction]:
            yield from super().predict(requests, task)

    first, second = Whole(), Whole()
    one = replace(spec, cache=tmp_path / "cache", output=tmp_path / "one")
    two = replace(one, output=tmp_path / "two")
    run(one, lambda system, context: first)
    record = run(two, lambda system, context: second)
    assert len(first.asked) == 144
    assert second.asked == []
    assert record.settings["answers_from_cache"] == {"invented_qa/model": 144}
    files = [spec.output / "invented_qa" / "model" / "samples.jsonl" for spec in (one, two)]
    assert files[0].read_bytes() == files[1].read_bytes()
