"""What the harness's tests share: a small suite over invented recordings, and WordNet if it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heartllm_eval.planning import RunSpec
from heartllm_eval.schema import Request
from heartllm_eval.scoring import Options
from heartllm_eval.suite import Suite
from heartllm_eval.testing import invented_requests

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def suite() -> Suite:
    return Suite(
        version=1,
        name="invented_qa",
        title="Invented questions",
        kind="qa",
        dataset="ptbxl",
        synthetic=True,
        slices=("question_type", "attribute_type", "sex"),
    )


@pytest.fixture
def spec(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A run over invented requests, with few resamples."""

    def build(suite: Suite, workspace: object, *, split: str | None = None) -> list[Request]:
        return invented_requests(split or suite.split)

    monkeypatch.setattr("heartllm_eval.planning.build_requests", build)
    monkeypatch.setattr("heartllm_eval.models.base.build_requests", build)
    return RunSpec(
        model="echo",
        suites=(suite,),
        output=tmp_path / "run",
        options=Options(resamples=200),
        verbosity=0,
        command=("heartllm-eval", "run"),
    )


@pytest.fixture
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """WordNet from the repository's cache or the user's; the test skips where there is none."""
    from heartllm_eval.metrics import wordnet as module

    if "HEARTLLM_CACHE" not in os.environ and (ROOT / ".cache" / module.FOLDER).is_dir():
        monkeypatch.setenv("HEARTLLM_CACHE", str(ROOT / ".cache"))
    if module.available().startswith("none"):
        pytest.skip("no WordNet: run heartllm-eval fetch-wordnet")
    module.load_wordnet.cache_clear()


@pytest.fixture(scope="session")
def run_schema() -> Any:
    """The published schema of run.json, as a validator."""
    jsonschema = pytest.importorskip("jsonschema")
    text = (ROOT / "eval" / "heartllm_eval" / "run.schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


@pytest.fixture(autouse=True)
def _every_record_follows_the_schema(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever run a test has made, and however that ended."""
    yield
    records = [path for path in tmp_path.rglob("run.json") if path.read_bytes().startswith(b'{\n "status"')]
    for path in records:
        request.getfixturevalue("run_schema").validate(json.loads(path.read_text(encoding="utf-8")))
