"""Which answers a training split holds, so that those never seen there can be counted apart.

A checkpoint carries the answers that it was tuned on as `training/answers.json`: {"answer; answer": how often}, the
classes of an answer in alphabetical order. Where that file is missing, `possible_answers` derives what could have been
asked from the labels: nothing that was trained on is missing there, but some of it may never have been drawn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from heartllm.data.records import ANSWER_SEPARATOR, Entry, Question
from heartllm.errors import DataError
from heartllm.texts import read_json
from heartllm.writing import write_whole

FILE = "training/answers.json"  # within a checkpoint
MIN_POSITIVES = 4  # of the bundled recipes: an answer that fewer recordings give is not drawn for training


def answer_key(answer: Iterable[str]) -> str:
    """The answer's classes as one text, whatever their order."""
    return ANSWER_SEPARATOR.join(sorted(set(answer)))


def count_answers(questions: Iterable[Question]) -> Counter[str]:
    """How often each answer is given."""
    return Counter(answer_key(question.answer) for question in questions)


def possible_answers(entries: Sequence[Entry], min_positives: int = MIN_POSITIVES) -> frozenset[str]:
    """The answers that the question builder could draw from these recordings."""
    from heartllm.data.question_views import Findings
    from heartllm.data.questions import QuestionBuilder, cells

    findings, found = Findings(entries), set[str]()
    for asked in QuestionBuilder().asked:
        filled = [cell for cell in cells(asked, findings) if len(cell.rows)]
        if asked.template.form == "query":
            filled = [cell for cell in filled if len(cell.rows) >= min_positives]
        found.update(answer_key(cell.answer) for cell in filled)
    return frozenset(found)


def write_answers(path: Path, counts: Mapping[str, int]) -> None:
    """Writes the file; the most frequent answer first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    write_whole(path, json.dumps(ordered, ensure_ascii=False, indent=0) + "\n")


def read_answers(path: Path) -> dict[str, int]:
    """Reads the file.

    Raises:
        DataError: if it is no such file.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy="Fetch the checkpoint again.") from None
    if not isinstance(found, dict) or not all(isinstance(count, int) for count in found.values()):
        raise DataError("is no table of answers", where=path, remedy="Fetch the checkpoint again.")
    return {str(answer): count for answer, count in found.items()}
