"""What a model is asked, in words: one place for every prompt.

Two layouts. `ecg-first` (default): features and ECG, then the question, so that all questions of one ECG share a
prefix.
`question-first`: the paper's order, the question before the ECG.
A question that compares two ECGs is shown both, each as a block of its own, the first ECG first.
Answers are joined with "; " and closed by the end token: no ECG-QA answer holds a semicolon, while some hold commas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm.language.packing import Ids
from heartllm.language.vocabulary import ECG, END, START, Vocabulary, code_token

Layout = Literal["ecg-first", "question-first"]
QUESTION, ANSWER, REPORT = "Question: ", " Answer:", "Report:"


def answer_text(answer: Sequence[str]) -> str:
    """The text a model should produce for a list of answers."""
    return ANSWER_SEPARATOR.join(answer)


def each_ecg(codes: ECG) -> list[ECG]:
    """The ECGs of a prompt one by one: codes (N,) or (E, N), or values (N, width) or (E, N, width)."""
    own = 2 if np.issubdtype(codes.dtype, np.floating) else 1  # axes of one ECG
    return list(codes.reshape(-1, *codes.shape[-own:])) if codes.size else []


def soft_values(codes: ECG | None) -> npt.NDArray[np.float32] | None:
    """What stands behind a prompt's placeholders, (E * N, width) in their order; None where there are codes."""
    if codes is None or not np.issubdtype(codes.dtype, np.floating):
        return None
    return np.concatenate(each_ecg(codes)).astype(np.float32)


def prefix_ids(
    vocabulary: Vocabulary, features: str, codes: ECG | None, question: str | None = None
) -> tuple[Ids, tuple[int, int]]:
    """The ids before the question (or, with `question`, everything before "Answer:" in the paper's order).

    Args:
        features: patient features as text, may be empty.
        codes: (N,) codes of one ECG, (E, N) of several, or None for a model that is to be blind. Of a continuous
            front-end values (N, width) or (E, N, width), whose places are held by the placeholder.

    Returns:
        Ids (P,), and the first and last-plus-one position of the codes (equal where there is no ECG; of several ECGs
        from the first's first to the last's last).
    """
    words = [*vocabulary.bos, *(vocabulary.text(features + "\n") if features else [])]
    if question is not None:
        words += vocabulary.text(QUESTION + question)
    if codes is None:
        return np.array(words, np.int64), (len(words), len(words))
    blocks = [vocabulary.ecg(block) for block in (each_ecg(codes) or [codes])]
    ids = np.concatenate([np.array(words, np.int64), *blocks])
    return ids, (int(np.argmax(ids == vocabulary.start)) + 1, len(ids) - 1)


def prompt_ids(vocabulary: Vocabulary, question: str | None, layout: Layout = "ecg-first") -> Ids:
    """The ids between the prefix and the answer: the question, or the request for a report when `question` is None."""
    if question is None:
        return np.array(vocabulary.text(REPORT), np.int64)
    return np.array(vocabulary.text(ANSWER if layout == "question-first" else QUESTION + question + ANSWER), np.int64)


def answer_ids(vocabulary: Vocabulary, text: str) -> Ids:
    """The ids of an answer or report, closed by the end token."""
    return np.array([*vocabulary.text(" " + text), vocabulary.eos], np.int64)


def _shown(block: ECG) -> list[int]:
    """The codes of one ECG; of values, the placeholder's in their places."""
    return [0] * len(block) if block.ndim == 2 else [int(code) for code in block if code >= 0]


def ecg_text(codes: ECG) -> str:
    """The codes of one ECG as a prompt spells them, between their marks; of values, the placeholder in their places."""
    return START + "".join(map(code_token, _shown(codes))) + END


def prompt_text(
    features: str,
    codes: ECG | None,
    question: str | None,
    layout: Layout = "ecg-first",
    describe: Callable[[ECG], str] | None = None,
) -> str:
    """The whole prompt as one string for an exported model, whose tokenizer knows the ECG tokens and adds <bos> itself.

    It reads as `prefix_ids` and `prompt_ids` together; `heartllm.export` checks that it is tokenised to the same ids.

    Args:
        describe: what a continuous front-end says of an ECG, as in `Vocabulary`.
    """
    blocks = [] if codes is None else (each_ecg(codes) or [codes])
    said = [describe(block) if describe is not None and block.ndim == 2 else "" for block in blocks]
    ecg = "".join((words + "\n" if words else "") + ecg_text(block) for words, block in zip(said, blocks, strict=True))
    head = features + "\n" if features else ""
    if question is None:
        return f"{head}{ecg}{REPORT}"
    if layout == "question-first":
        return f"{head}{QUESTION}{question}{ecg}{ANSWER}"
    return f"{head}{ecg}{QUESTION}{question}{ANSWER}"
