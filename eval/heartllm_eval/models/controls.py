"""Controls that look at no ECG: majority, constant, and the ceiling.

`retrieval` is in a module of its own; blind and shuffled are runs of the model itself (see `planning.systems_of`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from heartllm_eval.metrics.exact_match import join_answers
from heartllm_eval.models.base import Context, Task
from heartllm_eval.schema import Prediction, Request


def gold_text(request: Request) -> str:
    """The right answer, as a model should write it."""
    return join_answers(request.references) if request.kind == "qa" else request.references[0]


class Gold:
    """Always right: the ceiling, and a check of the metrics."""

    def __init__(self, context: Context) -> None:
        pass

    def describe(self) -> dict[str, str]:
        """Nothing to tell apart."""
        return {}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """The references."""
        for request in requests:
            yield Prediction(request.id, gold_text(request))


class Constant:
    """The same text every time: the one given, or else the training split's most common answer or report."""

    def __init__(self, context: Context, *, text: str | None = None) -> None:
        self.text = text

    def describe(self) -> dict[str, str]:
        """The text, or where it comes from."""
        return {"rule": "most common answer of the training split"} if self.text is None else {"text": self.text}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """The text."""
        text = most_common(map(gold_text, task.training())) if self.text is None else self.text
        for request in requests:
            yield Prediction(request.id, text)


def most_common(texts: Iterable[str]) -> str:
    """The most common text; of several the first in the alphabet; of none an empty one."""
    counts = Counter(texts)
    return min(counts, key=lambda text: (-counts[text], text), default="")


PRIOR = 5.0  # pseudo-counts that a wider group lends to a narrower one


class Majority:
    """The most common answer to a question in the training split; for reports, the most common report.

    A question's counts are joined with `PRIOR` pseudo-counts in the proportions of its template's attributes, these
    with those of the template, and these with those of its type. A pair of candidates seen twice, or a tie between
    cells that were drawn at one size, is so decided by
    what the template's questions are mostly answered with. An answer outside the question's options is passed over.
    """

    def __init__(self, context: Context) -> None:
        self._counts: dict[str, dict[Hashable, Counter[str]]] = {}

    def describe(self) -> dict[str, str | float]:
        """The rule; what it learns from is part of the suite."""
        return {"rule": "type > template > attributes > question", "prior": PRIOR}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Counts the training split's answers once a task, then looks them up."""
        counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
        for example in task.training():
            for key in self._keys(example):
                counts[key][gold_text(example)] += 1
        for request in requests:
            yield Prediction(request.id, self._answer(request, counts))

    @staticmethod
    def _keys(request: Request) -> tuple[Hashable, ...]:
        """From the widest to the narrowest."""
        return (
            ("type", request.question_type),
            ("template", request.template_id),
            ("filled", request.template_id, request.attribute),
            ("question", request.question, request.attribute),
        )

    def _answer(self, request: Request, counts: dict[Hashable, Counter[str]]) -> str:
        allowed = {*request.options, "none"}
        weights: dict[str, float] = {}
        for key in self._keys(request):
            seen = counts.get(key, Counter())
            kept = {text: n for text, n in seen.items() if not request.options or set(text.split("; ")) <= allowed}
            total = sum(weights.values()) or 1.0
            prior = {text: PRIOR * weight / total for text, weight in weights.items()}
            weights = {text: kept.get(text, 0) + prior.get(text, 0.0) for text in {**kept, **prior}}
        if not weights:
            return request.options[0] if request.options else ""
        return min(weights, key=lambda text: (-weights[text], text))
