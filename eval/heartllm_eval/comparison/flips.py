"""The answers behind a difference: which turned right, which turned wrong, and by how much reports changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heartllm_eval.metrics.base import Array, Metric
from heartllm_eval.schema import Prediction, Request

TO_RIGHT, TO_WRONG, UP, DOWN = "wrong->right", "right->wrong", "up", "down"


@dataclass(frozen=True)
class Flip:
    """One sample on which two systems differ. It holds no patient.

    Attributes:
        direction: "wrong->right": the control is wrong, the system right; "right->wrong" the other way round. For
            metrics that are not right or wrong: "up" or "down", by `change` points of the metric's last figure.
        id: the sample's, to find it in samples.jsonl.
    """

    task: str
    system: str
    control: str
    metric: str
    direction: str
    change: float
    id: str
    question_type: str
    question: str
    reference: str
    system_answer: str
    control_answer: str


def find_flips(
    task: str,
    metric: Metric,
    requests: Sequence[Request],
    systems: tuple[str, str],
    statistics: tuple[Array, Array],
    predictions: tuple[Mapping[str, Prediction], Mapping[str, Prediction]],
) -> list[Flip]:
    """Every sample whose score differs between two systems (the system first, then its control).

    Those of a metric that is not right or wrong come by size of the change, the others in the order of a hash of
    their ids, which is the same in every run and follows nothing in the data.
    """
    scores = [metric.score(rows)[..., -1] for rows in statistics]
    change = scores[0] - scores[1]
    found = []
    for index in np.flatnonzero(np.nan_to_num(change) != 0).tolist():
        request, moved = requests[index], float(change[index])
        names = (TO_RIGHT, TO_WRONG) if metric.binary else (UP, DOWN)
        answers = [_answer(said.get(request.id)) for said in predictions]
        found.append(
            Flip(
                task=task,
                system=systems[0],
                control=systems[1],
                metric=metric.full_name(metric.figures[-1]),
                direction=names[0] if moved > 0 else names[1],
                change=moved,
                id=request.id,
                question_type=request.question_type,
                question=request.question,
                reference="; ".join(request.references),
                system_answer=answers[0],
                control_answer=answers[1],
            )
        )
    order = (lambda flip: _spread(flip.id)) if metric.binary else (lambda flip: (-abs(flip.change), flip.id))
    return sorted(found, key=order)


def examples(flips: Sequence[Flip], count: int) -> list[Flip]:
    """At most `count` of each direction, of as many question types as there are; none says the same as another."""
    chosen: list[Flip] = []
    texts = {(flip.question, flip.reference, flip.system_answer, flip.control_answer): flip for flip in reversed(flips)}
    different = {flip.id for flip in texts.values()}
    for direction in (TO_RIGHT, TO_WRONG, UP, DOWN):
        waiting: dict[str, list[Flip]] = {}
        for flip in flips:
            if flip.direction == direction and flip.id in different:
                waiting.setdefault(flip.question_type, []).append(flip)
        taken = 0
        while taken < count and waiting:
            for kind in sorted(waiting):
                if taken < count:
                    chosen.append(waiting[kind].pop(0))
                    taken += 1
            waiting = {kind: rest for kind, rest in waiting.items() if rest}
    return chosen


def _answer(prediction: Prediction | None) -> str:
    if prediction is None:
        return ""
    return f"(no answer: {prediction.error})" if prediction.error else prediction.text


def _spread(key: str) -> tuple[str, str]:
    return hashlib.sha256(key.encode()).hexdigest(), key
