"""ROUGE-1, 2 and L (F): as the `rouge` 1.0.1 package has them (`heartllm`), and as rouge-score has (`standard`).

Both are computed here for many pairs at once; tests hold them against the two packages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from heartllm_eval.metrics.base import Array, BestOfReferences, Signature
from heartllm_eval.metrics.pairs import Ints, TokenPairs, distinct_ngrams, lcs_lengths, lcs_words, ngram_overlaps

_EPSILON = 1e-8  # keeps that package's F measure from dividing by zero, and lowers every score by as much
_WORD = re.compile(r"[a-z0-9]+")


class _ROUGE(BestOfReferences):
    family = "rouge"
    figures = ("rouge1", "rouge2", "rougeL")


def _sentences(text: str) -> list[list[str]]:
    # A sentence of white space only is kept, as one empty word: that is what the package does.
    if "." not in text:
        return [text.split() or [""]] if text else []
    return [part.split() or [""] for part in text.split(".") if part]


def _sentence_pairs(pairs: TokenPairs, ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[TokenPairs, Ints]:
    """Every sentence of a text with every one of its reference, and which pair of texts they are of.

    Most have no word in common, and are left out if that shows in the words' ids modulo 64.
    """
    sizes = [np.array(list(map(len, side)), np.int64) for side in (ours, theirs)]
    number = sizes[0] * sizes[1]
    owner = np.repeat(np.arange(len(ours)), number)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number)
    across = np.maximum(sizes[1], 1)[owner]
    bits = np.left_shift(np.uint64(1), (pairs.ids % 64).astype(np.uint64))
    sides, first = [], 0
    for side, size, index in zip((ours, theirs), sizes, (place // across, place % across), strict=True):
        lengths = np.fromiter(map(len, chain.from_iterable(side)), np.int64)
        starts = first + np.cumsum(lengths) - lengths
        first += int(lengths.sum())
        chosen = (np.cumsum(size) - size)[owner] + index
        held = np.bitwise_or.reduceat(bits[:first], starts) if len(starts) else bits[:0]
        sides.append((starts[chosen], lengths[chosen], held[chosen]))
    some = np.flatnonzero(sides[0][2] & sides[1][2])
    spans = [(starts[some], lengths[some]) for starts, lengths, _ in sides]
    return pairs.spans(spans[0], spans[1]), owner[some]


def rouge_1_0_1(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """F of ROUGE-1, 2 and L (0 to 1) under the semantics of PyPI's `rouge` 1.0.1, (pairs, 3).

    Texts are split at periods; n-grams and the words of common subsequences are counted as sets, over all pairs of
    sentences together. An empty hypothesis or reference, where the package raises ValueError, scores 0.
    """
    ours, theirs = [_sentences(text) for text in hypotheses], [_sentences(text) for text in references]
    words = [
        [parts[0] if len(parts) == 1 else list(chain.from_iterable(parts)) for parts in side] for side in (ours, theirs)
    ]
    pairs = TokenPairs(*words)
    common: Array = np.zeros((len(ours), 3))
    common[:, :2] = ngram_overlaps(pairs, 2)[1]
    sentences, owner = _sentence_pairs(pairs, ours, theirs)
    pair, word = lcs_words(sentences)
    vocabulary = max(1, len(pairs.words))
    found = np.unique(owner[pair] * vocabulary + word) // vocabulary
    common[:, 2] = np.bincount(found, minlength=len(ours))
    # ROUGE-L divides by the numbers of distinct words, as ROUGE-1 does.
    precision, recall = (common / np.maximum(size[:, [0, 1, 0]], 1) for size in distinct_ngrams(pairs))
    scores: Array = 2.0 * (precision * recall / (precision + recall + _EPSILON))
    return scores


class SetROUGE(_ROUGE):
    """As HeartLLM's authors score: F of the `rouge` 1.0.1 package, averaged; the best of several references."""

    profile = "heartllm"

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="rouge",
            **self.form.parts(self.profile),
            case="mixed",
            tok="whitespace",
            split="[.]",
            count="set",
            like="rouge-1.0.1",
            agg="mean",
        )

    def pair_scores(self, hypotheses: Sequence[str], references: Sequence[str]) -> Array:
        return rouge_1_0_1(hypotheses, references)


class StandardROUGE(_ROUGE):
    """Google's rouge-score without stemming: lower case, letters and digits only; the best of several references."""

    profile = "standard"

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="rouge",
            **self.form.parts(self.profile),
            case="lower",
            tok="a-z0-9",
            stem="no",
            like="rouge-score-0.1.2",
            agg="mean",
        )

    def pair_scores(self, hypotheses: Sequence[str], references: Sequence[str]) -> Array:
        pairs = TokenPairs(
            [_WORD.findall(text.lower()) for text in hypotheses], [_WORD.findall(text.lower()) for text in references]
        )
        common: Array = np.zeros((len(pairs), 3))
        common[:, :2] = ngram_overlaps(pairs, 2)[0]
        common[:, 2] = lcs_lengths(pairs)
        fewer = np.array([0, 1, 0])
        found = np.maximum(pairs.hypothesis_lengths[:, None] - fewer, 1)
        wanted = np.maximum(pairs.reference_lengths[:, None] - fewer, 1)
        precision, recall = common / found, common / wanted
        scores: Array = 2 * precision * recall / np.where(common > 0, precision + recall, 1.0)
        return scores
