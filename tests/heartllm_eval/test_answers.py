"""Jaccard, label scores and the form of answers, against scikit-learn and by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.answers import LabelScores
from heartllm_eval.metrics.exact_match import join_answers
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import evaluate, load_metrics, score_system

LEADS = ("lead I", "lead II", "lead III", "lead aVR", "lead V1", "none")


def ask(*answer: str, kind: str = "single-query", options: tuple[str, ...] = LEADS) -> Request:
    return Request("1", "qa", question_type=kind, references=answer, options=options)


def random_sets(count: int, seed: int = 4) -> tuple[list[Prediction], list[Request]]:
    generator = random.Random(seed)

    def some() -> list[str]:
        return generator.sample(LEADS[:5], generator.randint(0, 4)) or ["none"]

    requests = [ask(*some()) for _ in range(count)]
    return [Prediction("1", join_answers(some()).upper()) for _ in requests], requests


def test_label_scores_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    predictions, requests = random_sets(200)
    metric = get_metric("labels.strict")
    rows = metric.matrix(predictions, requests)
    labels = LabelScores.labels(requests)
    given = np.array([[label in part.text.lower().split("; ") for label in labels] for part in predictions])
    right = np.array([[label in map(str.lower, part.references) for label in labels] for part in requests])
    for picked in (np.arange(200), np.arange(7), np.array([3]), np.array([1, 1, 1, 60])):
        found = metric.score(rows[picked].sum(axis=0))
        occurs = right[picked].any(axis=0) | given[picked].any(axis=0)
        expected = []
        for average in ("micro", "macro"):
            expected += sklearn.precision_recall_fscore_support(
                right[picked][:, occurs], given[picked][:, occurs], average=average, zero_division=0
            )[:3]
        assert found == pytest.approx(100 * np.array(expected), abs=1e-9)


def test_labels_that_never_occur_change_no_score() -> None:
    few = np.array([[2.0, 1.0, 0.0, 0.0, 0.0, 3.0, 1.0, 4.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]])
    many = np.hstack([few[:, :3], np.zeros((2, 30)), few[:, 3:]])
    metric = LabelScores()
    assert np.array_equal(metric.score(few), metric.score(many))
    assert np.array_equal(metric.score(many), [metric.score(row) for row in many])
    assert np.isnan(metric.score(np.zeros((2, 2)))).all()
    assert metric.score(few[0]).tolist() == pytest.approx([50, 40, 400 / 9, 100 / 3, 50, 40])


def test_label_scores_of_many_sums_at_once() -> None:
    predictions, requests = random_sets(30)
    metric = get_metric("labels.strict")
    rows = metric.matrix(predictions, requests)
    sums = np.stack([rows[:10].sum(axis=0), rows.sum(axis=0), np.zeros(rows.shape[1])])
    together = metric.score(sums)
    assert together[0] == pytest.approx(metric.score(sums[0]))
    assert together[1] == pytest.approx(metric.score(sums[1]))
    assert np.isnan(together[2]).all()


def test_what_is_said_outside_the_labels_lowers_micro_precision_only() -> None:
    metric = get_metric("labels.strict")
    rows = metric.matrix(
        [Prediction("1", "lead I; chair"), Prediction("1", "lead II")], [ask("lead I"), ask("lead II")]
    )
    found = dict(zip(metric.figures, metric.score(rows.sum(axis=0)), strict=True))
    assert found["micro_precision"] == pytest.approx(200 / 3)
    assert found["micro_recall"] == 100
    assert found["macro_precision"] == 100


def test_the_table_by_label() -> None:
    table = LabelScores().table(
        [Prediction("1", "lead I; lead II"), Prediction("1", "lead II")], [ask("lead I"), ask("lead I", "lead II")]
    )
    assert table["lead i"] == {
        "precision": 100.0,
        "recall": 50.0,
        "f1": pytest.approx(200 / 3),
        "support": 2.0,
        "given": 1.0,
    }
    assert table["lead ii"]["precision"] == 50.0
    assert table["none"]["support"] == 0.0


def test_yes_no_questions_do_not_count() -> None:
    verify = ask("yes", kind="single-verify", options=("no", "yes"))
    untyped = ask("yes", kind="", options=())
    for name in ("jaccard.strict", "labels.strict"):
        metric = get_metric(name)
        for request in (verify, untyped):
            assert not any(metric.statistics("yes", request))
        assert metric.statistics("lead I", ask("lead I", kind="single-choose"))[-1] == 1.0


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("lead I; LEAD II", ("lead II", "lead I"), 1.0),
        ("lead I; lead II", ("lead I",), 0.5),
        ("lead I; lead II; chair", ("lead I", "lead V1"), 0.25),
        ("", ("lead I",), 0.0),
        ("none", (), 1.0),
    ],
)
def test_jaccard(text: str, answer: tuple[str, ...], expected: float) -> None:
    assert get_metric("jaccard.strict").statistics(text, ask(*answer)) == (expected, 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lead I; lead V1.", (0, 0, 0)),
        ("", (1, 0, 0)),
        (" \n", (1, 0, 0)),
        ("...", (0, 1, 0)),
        ("gibberish", (0, 1, 1)),
        ("I think it is lead aVR", (0, 0, 1)),
        ("lead I; chair", (0, 0, 1)),
    ],
)
def test_the_form_of_answers(text: str, expected: tuple[int, ...]) -> None:
    assert get_metric("answer_form.strict").statistics(text, ask("lead I")) == (*map(float, expected), 1.0, 1.0)


def test_failed_answers_count_as_empty_and_open_questions_cannot_be_answered_outside() -> None:
    metric = get_metric("answer_form.strict")
    assert metric.of(Prediction("1", "half a te", error="timeout"), ask("lead I")) == (1.0, 0.0, 0.0, 1.0, 1.0)
    assert metric.statistics("chair", ask("lead I", options=())) == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert metric.statistics(" ", ask("lead I", options=())) == (1.0, 0.0, 0.0, 0.0, 1.0)
    asked = [ask("lead I"), ask("lead I"), ask("lead I", options=()), ask("lead I", options=())]
    asked = [replace(request, id=str(index)) for index, request in enumerate(asked)]
    said = {str(index): Prediction(str(index), text) for index, text in enumerate(("chair", "", "chair", ""))}
    scored = score_system("a", asked, said, [metric])
    found = {part.metric.partition("/")[2]: part for part in evaluate("t", asked, [scored], [metric]).figures}
    assert {name: (part.value, part.n) for name, part in found.items()} == {
        "empty": (50.0, 4),
        "unparseable": (50.0, 2),
        "out_of_option": (50.0, 2),
    }
    older = metric.score(np.array([2.0, 1.0, 1.0, 4.0]))  # of a run that was frozen without the last column
    assert older.tolist() == [50.0, 25.0, 25.0]
    nothing = metric.score(np.array([1.0, 0.0, 0.0, 0.0, 4.0]))
    assert nothing[0] == 25.0
    assert np.isnan(nothing[1:]).all()


def test_macro_figures_have_no_interval() -> None:
    predictions, _ = random_sets(60)
    _, requests = random_sets(60, seed=5)
    asked = [replace(request, id=str(i), cluster=f"p{i}") for i, request in enumerate(requests)]
    said = {request.id: part for request, part in zip(asked, predictions, strict=True)}
    metrics = load_metrics(["labels.strict"])
    figures = evaluate("t", asked, [score_system("a", asked, said, metrics)], metrics).figures
    # Labels that are rare vanish from resamples: the percentile interval of a mean over labels does not hold its truth.
    assert {f.metric.partition("/")[2] for f in figures if f.low is None} == {
        f"macro_{name}" for name in ("precision", "recall", "f1")
    }
