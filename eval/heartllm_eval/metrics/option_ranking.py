"""Exact match of the answer that a model's likelihood ranks first among those that the question allows.

ECG-QA's published baselines classify: one yes/no decision for every class that the template allows, all of which must
be right. A language model has no such outputs, but it gives every possible answer a likelihood. The rule here, for all
question types:

1. A candidate is a whole answer, closed by the end of the text: each option alone ("none" is an option where the
   template has it). The sum of its tokens' log likelihoods is its score; nothing is divided by its length, since the
   closed answers already share one probability of 1.
2. Where several options may hold (every question that is not answered by yes or no), the best option is joined with
   each of the others, and so on, one at a time, as long as the score rises. Options are joined in the order in which
   the request lists them.
3. The candidate of the highest score is the answer. Everything outside the options is left out, so this figure never
   counts how an answer is worded, and it is no lower for a model that never writes one of the options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm_eval.metrics.base import Array, Signature
from heartllm_eval.metrics.exact_match import ExactMatch, normalise, parse_answers, reference_set
from heartllm_eval.schema import Prediction, Request

YES_NO = frozenset({"yes", "no", "not sure"})
NONE = "none"


def has_several_answers(request: Request) -> bool:
    """Whether the question can have more than one answer: everything but questions answered by yes or no."""
    if request.question_type:
        return not request.question_type.endswith("verify")
    return not {normalise(part) for part in request.options or request.references} <= YES_NO


def rank_options(
    request: Request, likelihoods: Callable[[Sequence[str]], Sequence[float]]
) -> Mapping[str, float] | None:
    """Candidate answer -> score, for `Prediction.option_scores`; None where the request has no options.

    Args:
        request: what was asked.
        likelihoods: candidate answers -> the log likelihood of each as the whole answer to this request.
    """
    options = request.options
    if not options:
        return None
    found = dict(zip(options, map(float, likelihoods(options)), strict=True))
    single = [index for index, option in enumerate(options) if normalise(option) != NONE]
    if not has_several_answers(request) or len(single) < 2:
        return found
    chosen = [max(single, key=lambda index: found[options[index]])]
    best = found[options[chosen[0]]]
    while len(chosen) < len(single):
        sets = [sorted([*chosen, index]) for index in single if index not in chosen]
        texts = [ANSWER_SEPARATOR.join(options[index] for index in part) for part in sets]
        scores = list(map(float, likelihoods(texts)))
        found.update(zip(texts, scores, strict=True))
        top = max(range(len(sets)), key=scores.__getitem__)
        if scores[top] <= best:
            break
        chosen, best = sets[top], scores[top]
    return found


class OptionRestrictedExactMatch(ExactMatch):
    """The allowed answer of the highest likelihood is the reference.

    A system that ranks no options is not counted at all; in one that does, a sample without ranked options is wrong.
    Requests without known options are left out of n.
    """

    name = "exact_match.option_restricted"

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="exact_match",
            variant="option_restricted",
            rank="whole_answer",
            score="sum_logprob",
            length_norm="no",
            several="greedy",
            match="set",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        """A text alone says nothing about the other answers."""
        return 0.0, 0.0

    def of(self, prediction: Prediction, request: Request) -> tuple[float, ...]:
        if not request.options or prediction.option_scores is None:
            return 0.0, 0.0
        answer = best_option(prediction.option_scores, request.options)
        return float(answer == reference_set(request.references)), 1.0

    def matrix(self, predictions: Sequence[Prediction], requests: Sequence[Request]) -> Array:
        found = super().matrix(predictions, requests)
        if any(prediction.option_scores is not None for prediction in predictions):
            found[:, 1] = np.maximum(found[:, 1], [bool(request.options) for request in requests])
        return found


def best_option(scores: Mapping[str, float], options: Sequence[str]) -> frozenset[str]:
    """The answers of the best candidate that holds options and nothing else; of equal ones the alphabetically first."""
    allowed = {normalise(option) for option in options}
    best: tuple[float, str] = (math.inf, "")
    for text, score in scores.items():
        given = parse_answers(text)
        if given and given <= allowed and not math.isnan(score):
            best = min(best, (-score, text))
    return parse_answers(best[1])
