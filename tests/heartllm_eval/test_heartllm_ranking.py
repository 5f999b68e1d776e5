"""The heartllm adapter ranks the allowed answers: with the reference checkpoint, on codes drawn at random."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
pytest.importorskip("transformers", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm_eval.metrics import get_metric
from heartllm_eval.models.base import Context, Task
from heartllm_eval.models.heartllm import HeartLLM
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Request

CHECKPOINT = Path(__file__).resolve().parents[2] / "reports" / "reference" / "checkpoint"
QUESTIONS = (
    ("Does this ECG show symptoms of atrial fibrillation?", "single-verify", ("no", "not sure", "yes")),
    ("What noise does this ECG show?", "single-query", ("baseline drift", "burst noise", "static noise", "none")),
)


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> HeartLLM:
    if not CHECKPOINT.is_dir():
        pytest.skip("the reference checkpoint is not here")
    found = HeartLLM(Context(Workspace()), checkpoint=str(CHECKPOINT))
    codes = np.random.default_rng(5).integers(0, 1296, 313)
    monkeypatch.setattr(found, "codes", lambda *about: codes)
    return found


def ask() -> list[Request]:
    return [
        Request(
            str(index), "qa", "ptbxl", ("1",), question=text, question_type=kind, options=options, references=("no",)
        )
        for index, (text, kind, options) in enumerate(QUESTIONS)
    ]


def test_options_are_ranked_only_when_asked_for(adapter: HeartLLM) -> None:
    requests = ask()
    plain = list(adapter.predict(requests, Task("t", "qa", requests, 8)))
    assert all(part.option_scores is None for part in plain)
    ranked = {part.id: part for part in adapter.predict(requests, Task("t", "qa", requests, 8, score_options=True))}
    assert {part.id: part.text for part in plain} == {key: part.text for key, part in ranked.items()}
    for request in requests:
        scores = ranked[request.id].option_scores
        assert scores is not None
        assert set(request.options) <= set(scores)
        assert all(score < 0 for score in scores.values())
        assert sum(map(math.exp, scores.values())) < 1 + 1e-6  # closed answers share one probability
        if ranked[request.id].text in request.options:  # greedy decoding found an allowed answer: none is far above it
            assert scores[ranked[request.id].text] > max(scores.values()) - 1.0
        assert get_metric("exact_match.option_restricted").of(ranked[request.id], request)[1] == 1.0
    assert any(" " in text and ";" in text for text in ranked["1"].option_scores or {})  # sets were tried


def test_prompts_with_the_question_first_are_not_ranked(adapter: HeartLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(adapter, "context", Context(Workspace(), warn=told.append))
    config = SimpleNamespace(layout="question-first", features=False)
    monkeypatch.setattr(adapter, "responder", SimpleNamespace(config=config))
    assert adapter._ranked(ask()[0], None) is None
    assert "not ranked" in told[0]
