"""Ranking the allowed answers: which candidates are scored, and which one is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.option_ranking import best_option, has_several_answers, rank_options
from heartllm_eval.schema import Prediction, Request, Sample, dumps, sample_from_json

NOISES = ("baseline drift", "burst noise", "static noise", "none")
NAME = "exact_match.option_restricted"


def ask(*answer: str, kind: str = "single-query", options: tuple[str, ...] = NOISES) -> Request:
    return Request("1", "qa", question_type=kind, references=answer, options=options)


def likelihoods_of(*right: str) -> object:
    """A model that believes each option on its own: 0.9 if it is right, 0.1 if not."""

    def score(texts: Sequence[str]) -> list[float]:
        found = []
        for text in texts:
            said = set(text.split("; ")) - {"none"}
            found.append(sum(math.log(0.9 if (name in said) == (name in right) else 0.1) for name in NOISES[:3]))
        return found

    return score


@given(st.sets(st.sampled_from(NOISES[:3])))
def test_the_most_likely_set_is_found(right: set[str]) -> None:
    scores = rank_options(ask(), likelihoods_of(*right))  # type: ignore[arg-type]
    assert scores is not None
    answer = tuple(sorted(right)) or ("none",)
    prediction = Prediction("1", "chair", option_scores=scores)
    assert get_metric(NAME).of(prediction, ask(*answer)) == (1.0, 1.0)
    assert get_metric(NAME).of(prediction, ask(*answer[1:], "static noise; burst noise", "x")) == (0.0, 1.0)


def test_yes_no_questions_rank_their_options_alone() -> None:
    asked: list[Sequence[str]] = []

    def score(texts: Sequence[str]) -> list[float]:
        asked.append(texts)
        return [-1.0, -3.0, -2.0]

    request = ask("no", kind="single-verify", options=("no", "not sure", "yes"))
    scores = rank_options(request, score)
    assert asked == [("no", "not sure", "yes")]
    assert scores == {"no": -1.0, "not sure": -3.0, "yes": -2.0}
    assert best_option(scores, request.options) == {"no"}


def test_choosing_always_weighs_both_together() -> None:
    scores = rank_options(
        ask(kind="single-choose", options=("burst noise", "static noise", "none")),
        likelihoods_of(),  # type: ignore[arg-type]
    )
    assert set(scores or {}) == {"burst noise", "static noise", "none", "burst noise; static noise"}


def test_candidates_outside_the_options_are_passed_over_and_ties_have_an_order() -> None:
    assert best_option({"chair": 0.0, "none": -2.0, "Burst Noise": -2.0}, NOISES) == {"burst noise"}
    assert best_option({"chair": 0.0}, NOISES) == frozenset()


def test_a_system_that_ranks_nothing_is_not_counted() -> None:
    metric, requests = get_metric(NAME), [ask("none"), ask("none", options=())]
    silent = [Prediction("1", "none"), Prediction("2", "none")]
    assert not metric.matrix(silent, requests).any()
    ranked = Prediction("1", "", option_scores={"none": -0.1})
    failed = Prediction("2", "", error="no such recording")
    assert metric.matrix([ranked, failed], [requests[0]] * 2).tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert metric.matrix([ranked, ranked], requests).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_which_questions_have_several_answers() -> None:
    assert not has_several_answers(ask(kind="single-verify"))
    assert not has_several_answers(ask(kind="comparison_consecutive-verify"))
    assert has_several_answers(ask(kind="single-choose"))
    assert not has_several_answers(ask(kind="", options=("yes", "No")))
    assert has_several_answers(ask(kind=""))


def test_ranked_answers_are_written_and_read_back() -> None:
    import json

    sample = Sample(ask("none"), Prediction("1", "x", option_scores={"none": -0.25, "burst noise": -7.0}))
    assert sample_from_json(json.loads(dumps(sample))) == sample
    broken = json.loads(dumps(sample))
    broken["prediction"]["option_scores"] = {"none": "high"}
    with pytest.raises(ValueError, match="finite numbers"):
        sample_from_json(broken)


def test_a_candidate_without_an_answer_or_a_likelihood_is_never_the_best() -> None:
    assert best_option({"": 0.0, "burst noise": -1.0}, NOISES) == {"burst noise"}
    assert best_option({"none": math.nan, "burst noise": -1.0}, NOISES) == {"burst noise"}
    assert best_option({"": 0.0, "none": math.nan}, NOISES) == frozenset()
