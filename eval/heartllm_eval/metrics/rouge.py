"""ROUGE-1, 2 and L (F): as the `rouge` 1.0.1 package has them (`heartllm`), and as rouge-score has (`standard`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heartllm_eval.metrics.base import MeanMetric, Signature
from heartllm_eval.schema import Request

FIGURES = ("rouge1", "rouge2", "rougeL")
_EPSILON = 1e-8  # keeps that package's F measure from dividing by zero, and lowers every score by as much


def _sentences(text: str) -> list[list[str]]:
    # A sentence of white space only is kept, as one empty word: that is what the package does.
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _f_measure(overlap: int, hypothesis: int, reference: int) -> float:
    precision = overlap / hypothesis if hypothesis else 0.0
    recall = overlap / reference if reference else 0.0
    return 2.0 * (precision * recall / (precision + recall + _EPSILON))


def _ngram_set(words: Sequence[str], order: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[start:] for start in range(order)), strict=False))


def _lcs_words(reference: Sequence[str], hypothesis: Sequence[str]) -> set[str]:
    """The words of one longest common subsequence: on equal lengths the walk back drops a word of the hypothesis."""
    rows = [[0] * (len(hypothesis) + 1)]
    for word in reference:
        above, row = rows[-1], [0]
        for column, other in enumerate(hypothesis):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        rows.append(row)
    found, i, j = set(), len(reference), len(hypothesis)
    while i and j:
        if reference[i - 1] == hypothesis[j - 1]:
            found.add(reference[i - 1])
            i, j = i - 1, j - 1
        elif rows[i - 1][j] > rows[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def rouge_1_0_1(hypothesis: str, reference: str) -> tuple[float, float, float]:
    """F of ROUGE-1, 2 and L (0 to 1) under the semantics of PyPI's `rouge` 1.0.1.

    Texts are split at periods; n-grams and the words of common subsequences are counted as sets, over all pairs of
    sentences together. An empty hypothesis or reference, where the package raises ValueError, scores 0.
    """
    ours, theirs = _sentences(hypothesis), _sentences(reference)
    if not ours or not theirs:
        return 0.0, 0.0, 0.0
    our_words, their_words = [word for part in ours for word in part], [word for part in theirs for word in part]
    scores = []
    for order in (1, 2):
        found, wanted = _ngram_set(our_words, order), _ngram_set(their_words, order)
        scores.append(_f_measure(len(found & wanted), len(found), len(wanted)))
    common: set[str] = set()
    for wanted_sentence in theirs:
        for sentence in ours:
            common |= _lcs_words(wanted_sentence, sentence)
    return scores[0], scores[1], _f_measure(len(common), len(set(our_words)), len(set(their_words)))


class SetROUGE(MeanMetric):
    """As HeartLLM's authors score: F of the `rouge` 1.0.1 package, averaged; the best of several references."""

    name = "rouge.heartllm"
    kind = "report"
    figures = FIGURES

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="rouge",
            profile="heartllm",
            case="mixed",
            tok="whitespace",
            split="[.]",
            count="set",
            like="rouge-1.0.1",
            agg="mean",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        scores = [rouge_1_0_1(prediction, reference) for reference in request.references]
        return *(max(column) for column in zip(*scores, strict=True)), 1.0


class StandardROUGE(MeanMetric):
    """Google's rouge-score without stemming: lower case, letters and digits only; the best of several references."""

    name = "rouge.standard"
    kind = "report"
    figures = FIGURES

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer: Any = RougeScorer(list(FIGURES), use_stemmer=False)

    @property
    def signature(self) -> Signature:
        from importlib.metadata import version

        return Signature(
            metric="rouge",
            profile="standard",
            case="lower",
            tok="a-z0-9",
            stem="no",
            agg="mean",
            rouge_score=version("rouge-score"),
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        scores = [self._scorer.score(reference, prediction) for reference in request.references]
        return *(max(float(score[figure].fmeasure) for score in scores) for figure in FIGURES), 1.0
