"""BLEU-1 to 4: the mean of sentence scores (`heartllm` profile) and the corpus score (`standard` profile)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from heartllm_eval.metrics.base import Array, MeanMetric, Metric, Signature
from heartllm_eval.schema import Request

MAX_ORDER = 4
# The weights that HeartLLM's authors pass to NLTK; those of BLEU-3 add up to 0.99.
HEARTLLM_WEIGHTS = ((1.0,), (0.5, 0.5), (0.33, 0.33, 0.33), (0.25, 0.25, 0.25, 0.25))
METHOD1_EPSILON = 0.1  # NLTK's smoothing method 1 (Chen and Cherry 2014) puts this in place of a count of 0


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def sentence_bleu(references: Sequence[Sequence[str]], hypothesis: Sequence[str]) -> tuple[float, ...]:
    """BLEU-1 to 4 (0 to 1) of one tokenised sentence with NLTK's smoothing method 1 and `HEARTLLM_WEIGHTS`.

    Equal to `nltk.translate.bleu_score.sentence_bleu`, which counts every n-gram anew for each of the four.
    """
    precisions: list[float] = []
    for order in range(1, MAX_ORDER + 1):
        counts = _ngrams(hypothesis, order)
        limits: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            limits |= _ngrams(reference, order)
        matched = sum(min(count, limits[gram]) for gram, count in counts.items())
        if order == 1 and matched == 0:
            return (0.0,) * MAX_ORDER
        precisions.append((matched or METHOD1_EPSILON) / max(1, len(hypothesis) - order + 1))
    length = len(hypothesis)
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    brevity = 1.0 if length > closest else math.exp(1 - closest / length)
    return tuple(
        brevity
        * math.exp(math.fsum(weight * math.log(value) for weight, value in zip(weights, precisions, strict=False)))
        for weights in HEARTLLM_WEIGHTS
    )


class SentenceBLEU(MeanMetric):
    """As HeartLLM's authors score: NLTK sentence BLEU, method 1, on tokens split at white space, averaged."""

    name = "bleu.heartllm"
    kind = "report"
    figures = ("bleu1", "bleu2", "bleu3", "bleu4")

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="bleu",
            profile="heartllm",
            case="mixed",
            tok="whitespace",
            smooth="method1",
            weights="1,.5,.33,.25",
            agg="mean",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        return *sentence_bleu([reference.split() for reference in request.references], prediction.split()), 1.0


class CorpusBLEU(Metric):
    """sacreBLEU's corpus BLEU. Statistics: matched n-grams (4), all n-grams (4), length, reference length."""

    name = "bleu.standard"
    kind = "report"
    figures = ("bleu1", "bleu2", "bleu3", "bleu4")

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU

        # effective_order only changes sentence scores, which are not used here; without it every call warns.
        self._bleu: Any = BLEU(effective_order=True)

    @property
    def signature(self) -> Signature:
        from sacrebleu import __version__

        return Signature(
            metric="bleu",
            profile="standard",
            case="mixed",
            tok="13a",
            smooth="exp",
            agg="corpus",
            sacrebleu=__version__,
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        found = self._bleu.sentence_score(prediction, list(request.references))
        return tuple(map(float, (*found.counts, *found.totals, found.sys_len, found.ref_len)))

    def score(self, totals: Array) -> Array:
        correct, total = totals[..., :MAX_ORDER], totals[..., MAX_ORDER : 2 * MAX_ORDER]
        length, reference = totals[..., -2], totals[..., -1]
        # Exponential smoothing: the k-th order without a match counts as 1 / 2^k matches.
        missed = np.cumsum((correct == 0) & (total > 0), axis=-1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            precision = np.where(total > 0, np.where(correct > 0, correct, 0.5**missed) / total, 0.0)
            brevity = np.where(length >= reference, 1.0, np.where(length > 0, np.exp(1 - reference / length), 0.0))
            means = np.cumsum(np.log(precision), axis=-1) / np.arange(1, MAX_ORDER + 1)
            scores: Array = 100.0 * brevity[..., None] * np.exp(means)
        scores = np.where(np.cumsum(correct, axis=-1) > 0, scores, 0.0)
        # Without any reference there was no sample at all.
        return np.where((reference > 0)[..., None], scores, np.nan)
