"""Answers never seen in training, counted apart: the slice `answer_seen`.

seen               this very set of classes was the answer to a training question
new combination    each class was, but never together
new class          some class was never part of an answer in training

What was seen in training is told by the checkpoint (`training/answers.json`). For one without that file, and for models
that are no checkpoints, it is derived from labels: of the training splits that the checkpoint names, or else of those
that the suite's controls learn from. The record of a run says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heartllm.data.answers import FILE, answer_key, possible_answers, read_answers
from heartllm.data.records import ANSWER_SEPARATOR
from heartllm.errors import HeartLLMError
from heartllm.untrusted import inside
from heartllm_eval.exposure import stated_training
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import ANSWER_SEEN, Request
from heartllm_eval.suite import Suite

SLICE = ANSWER_SEEN
SEEN, COMBINATION, CLASS, UNKNOWN = "seen", "new combination", "new class", "unknown"


@dataclass(frozen=True)
class KnownAnswers:
    """What was an answer in training.

    Attributes:
        answers: sets of classes, as `answer_key` writes them.
        source: where this is known from, for the record of a run.
    """

    answers: frozenset[str]
    source: str

    @property
    def classes(self) -> frozenset[str]:
        """All classes that occur in an answer."""
        return frozenset(name for answer in self.answers for name in answer.split(ANSWER_SEPARATOR))

    def mark(self, requests: Iterable[Request]) -> list[Request]:
        """The requests with their slice; reports are left as they are."""
        classes, marked = self.classes, []
        for request in requests:
            if request.kind == "qa":
                kind = SEEN
                if answer_key(request.references) not in self.answers:
                    kind = COMBINATION if classes.issuperset(request.references) else CLASS
                request = replace(request, slices={**request.slices, SLICE: kind if self.answers else UNKNOWN})
            marked.append(request)
        return marked


def known_answers(suite: Suite, model_args: Mapping[str, str], workspace: Workspace) -> KnownAnswers:
    """What a model has been taught to answer, as far as can be told; empty where nothing can."""
    folder = Path(model_args["checkpoint"]) if "checkpoint" in model_args else None
    if folder is not None and (folder / FILE).is_file():
        return KnownAnswers(frozenset(read_answers(inside(folder, FILE))), f"the checkpoint's {FILE}")
    names: Sequence[str] = [part.partition(":")[0] for part in stated_training(folder)] if folder is not None else ()
    whose = "that the checkpoint names" if names else "of the suite"
    names = names or suite.zero_shot_from or (suite.dataset,)
    if suite.kind == "qa" and suite.questions.source == "genuine":
        return KnownAnswers(frozenset(), "not known: the checkpoint does not say")
    try:
        found = [_possible(workspace, name, suite.train_split) for name in names]
    except HeartLLMError as error:
        return KnownAnswers(frozenset(), f"not known: {error}")
    return KnownAnswers(
        frozenset().union(*found),
        f"derived from the labels of the {suite.train_split} splits {whose}: {', '.join(names)}",
    )


_POSSIBLE: dict[tuple[Path, int, str], frozenset[str]] = {}  # by where the recordings lie: a process may run many times


def _possible(workspace: Workspace, name: str, split: str) -> frozenset[str]:
    entries = workspace.entries(name, split)
    key = (entries[0].path, len(entries), split)
    if key not in _POSSIBLE:
        _POSSIBLE[key] = possible_answers(entries)
    return _POSSIBLE[key]
