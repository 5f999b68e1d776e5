"""Controls that look at no ECG: majority, constant, and the ceiling. (Blind and shuffled are runs of `heartllm`.)"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

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
    """The same text every time."""

    def __init__(self, context: Context, *, text: str) -> None:
        self.text = text

    def describe(self) -> dict[str, str]:
        """The text."""
        return {"text": self.text}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """The text."""
        for request in requests:
            yield Prediction(request.id, self.text)


class Majority:
    """The most common answer in the training split: to the same question, otherwise to the same template with the same
    attributes, to the template, to the question type. For reports, the most common report.

    Ties go to the answer that comes first in the alphabet. An answer outside the question's options is passed over.
    """

    def __init__(self, context: Context) -> None:
        self._counts: dict[str, dict[Hashable, Counter[str]]] = {}

    def describe(self) -> dict[str, str]:
        """The rule; what it learns from is part of the suite."""
        return {"rule": "question > template+attributes > template > question type"}

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
        return (
            ("question", request.question, request.attribute),
            ("filled", request.template_id, request.attribute),
            ("template", request.template_id),
            ("type", request.question_type),
        )

    def _answer(self, request: Request, counts: dict[Hashable, Counter[str]]) -> str:
        allowed = {*request.options, "none"}
        for key in self._keys(request):
            for text, _ in sorted(counts.get(key, Counter()).items(), key=lambda item: (-item[1], item[0])):
                if not request.options or set(text.split("; ")) <= allowed:
                    return text
        return request.options[0] if request.options else ""
