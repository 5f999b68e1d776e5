"""A task's samples as what a browser reads quickly: an index of numbers for lists and filters, texts in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heartllm.errors import UsageError
from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.exact_match import join_answers, parse_answers, reference_set
from heartllm_eval.page.gather import Task
from heartllm_eval.schema import Prediction, Request

CHUNK = 1000  # samples of texts that are read together
CLASSES = 400  # answers that the confusion tells apart; the rest are "other"
OTHER, NOTHING = "(another answer)", "(no answer)"


class Numbering:
    """Numbers things from 1 in the order in which they come; so that a page need not show what they are called."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers) + 1)


def figure_names(task: Task) -> list[str]:
    """The figures that samples of this task carry, those of the primary metric first."""
    names = dict.fromkeys(name for side in task.sides for scores in side.scores[task.name].values() for name in scores)
    primary = str(task.about.get("primary", ""))
    return sorted(names, key=lambda name: name.partition("/")[0] != primary)


def primary_figure(task: Task) -> str | None:
    """The figure that says how good one answer is: the last of the primary metric's; None where nothing was scored."""
    primary = str(task.about.get("primary", ""))
    return next((name for name in reversed(figure_names(task)) if name.partition("/")[0] == primary), None)


def is_binary(task: Task) -> bool:
    """Whether an answer to this task is right or wrong, by its primary metric."""
    try:
        return get_metric(str(task.about.get("primary", ""))).binary
    except UsageError:  # a metric of another version
        return False


def index(task: Task, patients: Numbering, ecgs: Numbering) -> dict[str, Any]:
    """Column by column: what lists, filters and the confusion of answers need of every sample.

    Returns:
        types: names of question types; type: of each sample, as a number. patient: numbers from 1 (0: not known); ecg:
        lists of numbers. classes: names of answers; reference, and answer of each system: numbers of classes (-1: not
        answered). Of each system, score: per cent, None where there is none; said: see `_status`.
    """
    figure, kinds = primary_figure(task), list(dict.fromkeys(request.question_type for request in task.requests))
    qa = task.about.get("kind") == "qa"
    names = _classes(task) if qa else []
    known = {name: number for number, name in enumerate(names)}
    systems = []
    for side in task.sides:
        said, scores = side.predictions[task.name], side.scores[task.name]
        systems.append(
            {
                "score": [_rounded(scores.get(request.id, {}).get(figure or "")) for request in task.requests],
                "answer": [_answer_class(said.get(request.id), known) if qa else -1 for request in task.requests],
                "said": [_status(said.get(request.id)) for request in task.requests],
            }
        )
    numbers = {kind: number for number, kind in enumerate(kinds)}
    return {
        "types": kinds,
        "type": [numbers[request.question_type] for request in task.requests],
        "patient": [patients(request.cluster) if request.cluster else 0 for request in task.requests],
        "ecg": [_ecgs(request, ecgs) for request in task.requests],
        "classes": names,
        "reference": [known[_label(reference_set(request.references))] for request in task.requests] if qa else [],
        "systems": systems,
    }


def chunks(task: Task, *, ids: bool) -> Iterator[list[dict[str, Any]]]:
    """The texts of `CHUNK` samples at a time; keys are short since they come with every sample.

    Args:
        ids: with the sample's id and its recordings' (both name the recording at its source).
    """
    figures = figure_names(task)
    for start in range(0, len(task.requests), CHUNK):
        yield [_texts(task, request, figures, ids=ids) for request in task.requests[start : start + CHUNK]]


def _texts(task: Task, request: Request, figures: Sequence[str], *, ids: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "q": request.question,
        "o": list(request.options),
        "b": request.background,
        "r": list(request.references),
        "s": {**({"attribute type": request.attribute_type} if request.attribute_type else {}), **request.slices},
        "a": [
            _answer(request, side.predictions[task.name].get(request.id), side.scores[task.name], figures, ids=ids)
            for side in task.sides
        ],
    }
    if ids:
        found["id"], found["records"] = request.id, list(request.record_ids)
    return found


def _answer(
    request: Request,
    prediction: Prediction | None,
    scores: Mapping[str, Mapping[str, float]],
    figures: Sequence[str],
    *,
    ids: bool,
) -> list[Any] | None:
    """[text, error, [figure, ...], {option: log likelihood}], without what is empty at its end."""
    if prediction is None:
        return None
    error, mine = prediction.error, scores.get(request.id)
    for name in () if ids else (request.id, *request.record_ids):
        error = error and error.replace(name, "…")  # errors of reading name the recording
    values = [_rounded(mine.get(name), 1) for name in figures] if mine else []  # as they are shown: digits cost most
    found: list[Any] = [prediction.text, error, values, dict(prediction.option_scores or {})]
    while len(found) > 1 and not found[-1]:
        found.pop()
    return found


def _ecgs(request: Request, ecgs: Numbering) -> list[int]:
    return [ecgs((request.dataset, record)) for record in request.record_ids]


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def _status(prediction: Prediction | None) -> int:
    """0: no answer yet, or not asked; 1: an answer; 2: failed."""
    return 0 if prediction is None else 2 if prediction.error else 1


def _label(answers: frozenset[str]) -> str:
    return join_answers(sorted(answers))


def _classes(task: Task) -> list[str]:
    """All right answers, then the most frequent others: what the confusion of answers tells apart."""
    right = Counter(_label(reference_set(request.references)) for request in task.requests)
    given: Counter[str] = Counter()
    for side in task.sides:
        for request in task.requests:
            prediction = side.predictions[task.name].get(request.id)
            if prediction is not None and not prediction.error:
                given[_label(parse_answers(prediction.text))] += 1
    more = sorted((name for name in given if name not in right), key=lambda name: (-given[name], name))
    wanted = sorted(right, key=lambda name: (-right[name], name))
    return [*wanted, *more[: max(0, CLASSES - len(wanted))], OTHER, NOTHING]


def _answer_class(prediction: Prediction | None, known: Mapping[str, int]) -> int:
    if prediction is None:
        return -1
    given = frozenset[str]() if prediction.error else parse_answers(prediction.text)
    return known.get(_label(given), known[OTHER]) if given else known[NOTHING]
