"""What a model is asked, in words: one place for every prompt.

Two layouts. `ecg-first` (default): features and ECG, then the question, so that all questions of one ECG share a
prefix.
`question-first`: the paper's order, the question before the ECG.
A question that compares two ECGs is shown both, each as a block of its own, the first ECG first.
Answers are joined with "; " and closed by the end token: no ECG-QA answer holds a semicolon, while some hold commas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm.language.packing import Ids
from heartllm.language.vocabulary import END, START, Vocabulary, code_token

Layout = Literal["ecg-first", "question-first"]
QUESTION, ANSWER, REPORT = "Question: ", " Answer:", "Report:"


def answer_text(answer: Sequence[str]) -> str:
    """The text a model should produce for a list of answers."""
    return ANSWER_SEPARATOR.join(answer)


def prefix_ids(
    vocabulary: Vocabulary, features: str, codes: npt.NDArray[np.integer[Any]] | None, question: str | None = None
) -> tuple[Ids, tuple[int, int]]:
    """The ids before the question (or, with `question`, everything before "Answer:" in the paper's order).

    Args:
        features: patient features as text, may be empty.
        codes: (N,) codes of one ECG, (E, N) of several, or None for a model that is to be blind.

    Returns:
        Ids (P,), and the first and last-plus-one position of the codes (equal where there is no ECG; of several ECGs
        from the first's first to the last's last).
    """
    words = [*vocabulary.bos, *(vocabulary.text(features + "\n") if features else [])]
    if question is not None:
        words += vocabulary.text(QUESTION + question)
    if codes is None:
        return np.array(words, np.int64), (len(words), len(words))
    blocks = [vocabulary.ecg(block) for block in np.atleast_2d(codes)]
    ids = np.concatenate([np.array(words, np.int64), *blocks])
    return ids, (len(words) + 1, len(ids) - 1)


def prompt_ids(vocabulary: Vocabulary, question: str | None, layout: Layout = "ecg-first") -> Ids:
    """The ids between the prefix and the answer: the question, or the request for a report when `question` is None."""
    if question is None:
        return np.array(vocabulary.text(REPORT), np.int64)
    return np.array(vocabulary.text(ANSWER if layout == "question-first" else QUESTION + question + ANSWER), np.int64)


def answer_ids(vocabulary: Vocabulary, text: str) -> Ids:
    """The ids of an answer or report, closed by the end token."""
    return np.array([*vocabulary.text(" " + text), vocabulary.eos], np.int64)


def prompt_text(
    features: str,
    codes: npt.NDArray[np.integer[Any]] | None,
    question: str | None,
    layout: Layout = "ecg-first",
) -> str:
    """The whole prompt as one string for an exported model, whose tokenizer knows the ECG tokens and adds <bos> itself.

    It reads as `prefix_ids` and `prompt_ids` together; `heartllm.export` checks that it is tokenised to the same ids.
    """
    blocks = np.empty((0, 0), np.int64) if codes is None else np.atleast_2d(codes)
    ecg = "".join(START + "".join(code_token(int(code)) for code in block) + END for block in blocks)
    head = features + "\n" if features else ""
    if question is None:
        return f"{head}{ecg}{REPORT}"
    if layout == "question-first":
        return f"{head}{QUESTION}{question}{ecg}{ANSWER}"
    return f"{head}{ecg}{QUESTION}{question}{ANSWER}"
