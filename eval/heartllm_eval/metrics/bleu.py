"""BLEU-1 to 4: the mean of sentence scores (`heartllm` profile) and the corpus score (`standard` profile).

N-grams are counted once for all orders and for many pairs at once; tests hold the scores against NLTK and sacreBLEU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from heartllm_eval.metrics.base import Array, MeanMetric, ReportMetric, Signature
from heartllm_eval.metrics.forms import AS_IS, TextForm
from heartllm_eval.metrics.pairs import TokenPairs, ngram_overlaps

MAX_ORDER = 4
# The weights that HeartLLM's authors pass to NLTK; those of BLEU-3 add up to 0.99.
HEARTLLM_WEIGHTS = ((1.0,), (0.5, 0.5), (0.33, 0.33, 0.33), (0.25, 0.25, 0.25, 0.25))
METHOD1_EPSILON = 0.1  # NLTK's smoothing method 1 (Chen and Cherry 2014) puts this in place of a count of 0

Tokens = Sequence[str]


def _ngrams(tokens: Tokens, order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _matches(hypothesis: Tokens, references: Sequence[Tokens]) -> list[float]:
    """Clipped n-gram matches with several references: each n-gram counts as often as in the one that has most of it."""
    found = []
    for order in range(1, MAX_ORDER + 1):
        limits: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            limits |= _ngrams(reference, order)
        found.append(float((_ngrams(hypothesis, order) & limits).total()))
    return found


def counts(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[Array, Array]:
    """Clipped n-gram matches (samples, 4), and the lengths (samples, 2) of each text and of its closest reference.

    Of two references that are equally close, the shorter one is taken. Without any reference its length is 0.
    """
    alone = [texts[0] if texts else () for texts in references]
    pairs = TokenPairs(hypotheses, alone)
    matched = ngram_overlaps(pairs, MAX_ORDER)[0]
    lengths = np.stack([pairs.hypothesis_lengths, pairs.reference_lengths], axis=1).astype(np.float64)
    for row, (tokens, texts) in enumerate(zip(hypotheses, references, strict=True)):
        if len(texts) > 1:
            matched[row] = _matches(tokens, texts)
            lengths[row, 1] = min((abs(len(text) - len(tokens)), len(text)) for text in texts)[1]
    return matched, lengths


def ngram_totals(lengths: Array) -> Array:
    """How many n-grams texts of these lengths (samples,) have, (samples, 4)."""
    totals: Array = np.maximum(lengths[:, None] - np.arange(MAX_ORDER), 0)
    return totals


def sentence_bleu(matched: Array, lengths: Array) -> Array:
    """BLEU-1 to 4 (samples, 4), 0 to 1, with NLTK's smoothing method 1 and `HEARTLLM_WEIGHTS`, from `counts`.

    Equal to `nltk.translate.bleu_score.sentence_bleu`.
    """
    precision = np.where(matched > 0, matched, METHOD1_EPSILON) / np.maximum(ngram_totals(lengths[:, 0]), 1)
    weights = np.array([row + (0.0,) * (MAX_ORDER - len(row)) for row in HEARTLLM_WEIGHTS])
    longer = lengths[:, 0] > lengths[:, 1]
    brevity = np.exp(np.where(longer, 0.0, 1 - lengths[:, 1] / np.maximum(lengths[:, 0], 1)))
    # No matrix product: its last digit would depend on how many samples are scored together.
    scores: Array = brevity[:, None] * np.exp((np.log(precision)[:, None, :] * weights).sum(axis=-1))
    return np.where(matched[:, :1] > 0, scores, 0.0)


class SentenceBLEU(MeanMetric, ReportMetric):
    """As HeartLLM's authors score: NLTK sentence BLEU, method 1, on tokens split at white space, averaged."""

    family, profile = "bleu", "heartllm"
    figures = ("bleu1", "bleu2", "bleu3", "bleu4")

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="bleu",
            **self.form.parts(self.profile),
            case="mixed",
            tok="whitespace",
            smooth="method1",
            weights="1,.5,.33,.25",
            agg="mean",
        )

    def rows(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        found = counts([text.split() for text in hypotheses], [[text.split() for text in part] for part in references])
        counted = np.array([[float(len(texts) > 0)] for texts in references])
        return np.hstack([sentence_bleu(*found), counted])


class CorpusBLEU(ReportMetric):
    """sacreBLEU's corpus BLEU. Statistics: matched n-grams (4), all n-grams (4), length, reference length."""

    family, profile = "bleu", "standard"
    figures = ("bleu1", "bleu2", "bleu3", "bleu4")

    def __init__(self, form: TextForm = AS_IS) -> None:
        super().__init__(form)
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

        self._tokenizer: Any = Tokenizer13a()

    @property
    def signature(self) -> Signature:
        from sacrebleu import __version__

        return Signature(
            metric="bleu",
            **self.form.parts(self.profile),
            case="mixed",
            tok="13a",
            smooth="exp",
            agg="corpus",
            sacrebleu=__version__,
        )

    def _tokens(self, text: str) -> list[str]:
        tokens: list[str] = self._tokenizer(text.rstrip()).split()
        return tokens

    def rows(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        matched, lengths = counts(
            [self._tokens(text) for text in hypotheses], [[self._tokens(text) for text in part] for part in references]
        )
        return np.hstack([matched, ngram_totals(lengths[:, 0]), lengths])

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
