"""Answers never seen in training are counted apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from heartllm.data.answers import FILE, answer_key, count_answers, possible_answers, read_answers, write_answers
from heartllm.data.questions import QuestionBuilder
from heartllm.data.records import Entry, Labels, Question
from heartllm.errors import DataError
from heartllm_eval.planning import RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.runner import run
from heartllm_eval.schema import Request, requests_hash
from heartllm_eval.suite import Suite
from heartllm_eval.testing import Echo
from heartllm_eval.unseen import KnownAnswers, known_answers


def ask(*references: str, kind: str = "qa") -> Request:
    return Request(id="-".join(references), kind=kind, references=references, slices={"sex": "male"})  # type: ignore[arg-type]


def test_three_kinds_of_answers() -> None:
    known = KnownAnswers(frozenset({"yes", "a; b", "c"}), "here")
    found = known.mark([ask("yes"), ask("b", "a"), ask("a", "c"), ask("a", "d"), ask("d"), ask("x", kind="report")])
    assert [request.slice("answer_seen") for request in found] == [
        "seen", "seen", "new combination", "new class", "new class", "unknown",
    ]  # fmt: skip
    assert all(request.slices["sex"] == "male" for request in found)
    assert KnownAnswers(frozenset(), "nowhere").mark([ask("yes")])[0].slice("answer_seen") == "unknown"


def test_what_was_asked_is_the_same_whatever_the_model_has_seen() -> None:
    asked = [ask("yes"), ask("a", "b")]
    marked = [KnownAnswers(frozenset({text}), "").mark(asked) for text in ("yes", "no")]
    assert marked[0][0].slices != marked[1][0].slices
    assert requests_hash(marked[0]) == requests_hash(marked[1]) == requests_hash(asked)
    assert requests_hash(asked) != requests_hash([ask("no"), ask("a", "b")])


def test_answers_as_a_file(tmp_path: Path) -> None:
    asked = [
        Question(1, 1, n, "t", "s", "q", answer, ("1",), ())
        for n, answer in enumerate([("b", "a"), ("a", "b"), ("yes",)])
    ]
    counts = count_answers(asked)
    assert counts == {"a; b": 2, "yes": 1}
    write_answers(tmp_path / FILE, counts)
    assert list(read_answers(tmp_path / FILE).items()) == [("a; b", 2), ("yes", 1)]
    for wrong in ("[1]", '{"a": "b"}', "{", ""):
        (tmp_path / FILE).write_text(wrong)
        with pytest.raises(DataError, match="Fetch the checkpoint again"):
            read_answers(tmp_path / FILE)


def entries(count: int = 12) -> list[Entry]:
    kinds = [{"sinus rhythm": 0.0}, {"atrial fibrillation": 0.0}, {"sinus rhythm": 0.0, "inverted t-waves": 0.0}]
    return [
        Entry(str(n), str(n), "ptbxl", Path(str(n)), Labels(statements=kinds[n % 3]), split="train")
        for n in range(count)
    ]


def test_derived_answers_hold_all_that_can_be_drawn() -> None:
    possible = possible_answers(entries())
    for seed in range(3):
        drawn = QuestionBuilder(min_positives=4).draw(entries(), per_cell=60, seed=seed)
        assert {answer_key(question.answer) for question in drawn} <= possible
    assert {"yes", "no", "sinus rhythm", "atrial fibrillation", "inverted t-waves", "none"} <= possible
    assert "atrial flutter" not in possible
    assert "inverted t-waves" not in possible_answers(entries(2))


def test_the_checkpoint_knows_best(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def of_split(self: Workspace, name: str, split: str | None = None) -> list[Entry]:
        seen.append(name)
        return entries()

    monkeypatch.setattr(Workspace, "entries", of_split)
    args = {"checkpoint": str(tmp_path)}
    assert "of the suite: ptbxl" in known_answers(suite, {}, Workspace()).source
    known_answers(replace(suite, zero_shot_from=("georgia", "mimic")), args, Workspace())
    (tmp_path / "checkpoint.toml").write_text('data = ["synthetic-a:0"]\n')
    assert "that the checkpoint names: synthetic-a" in known_answers(suite, args, Workspace()).source
    assert seen == ["ptbxl", "georgia", "mimic", "synthetic-a"]
    write_answers(tmp_path / FILE, {"yes": 3})
    known = known_answers(suite, args, Workspace())
    assert known.answers == frozenset({"yes"})
    assert known.source == f"the checkpoint's {FILE}"
    assert len(seen) == 4


def test_a_run_counts_them_apart(spec: RunSpec, tmp_path: Path) -> None:
    """Model and figures: seen and unseen answers with their counts; the record says how that is known."""
    write_answers(tmp_path / FILE, {"yes": 1, "no": 1, "not sure": 1, "lead I": 1, "none": 1})
    suite = replace(spec.suites[0], slices=("answer_seen",))
    spec = replace(spec, suites=(suite,), model_args={"checkpoint": str(tmp_path)})
    record = run(spec, lambda system, context: Echo())
    counts = {figure.slice: figure.n for figure in record.figures if figure.metric == "exact_match.strict"}
    assert counts.pop("all") == sum(counts.values()) == 144
    assert set(counts) == {"answer_seen=seen", "answer_seen=new class"}
    told = json.loads((spec.output / "run.json").read_text())["tasks"]["invented_qa"]
    assert told["answers_known_from"] == f"the checkpoint's {FILE}"
    assert "answer seen" in (spec.output / "results.md").read_text()


def test_without_training_data_nothing_is_said(suite: Suite) -> None:
    known = known_answers(suite, {}, Workspace())
    assert known.answers == frozenset()
    assert "not known" in known.source
