"""METEOR as NLTK has it (exact, stem and WordNet-synonym matches), on two tokenisations. Best of several references.

Computed here for many pairs at once; tests hold it against NLTK, whose stemmer and WordNet it uses.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from heartllm_eval.metrics.base import Array, BestOfReferences, Signature
from heartllm_eval.metrics.forms import AS_IS, TextForm
from heartllm_eval.metrics.pairs import Block, Bools, Counts, Ids, TokenPairs, counting_type
from heartllm_eval.metrics.wordnet import load_wordnet

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # NLTK's defaults
_TOKEN = re.compile(r"\w+|[^\w\s]")


class _METEOR(BestOfReferences):
    family = "meteor"
    figures = ("meteor",)
    tokens: ClassVar[str]

    def __init__(self, form: TextForm = AS_IS) -> None:
        super().__init__(form)
        from nltk.stem.porter import PorterStemmer

        self._stem = lru_cache(maxsize=200_000)(PorterStemmer().stem)
        self._wordnet, self._version = load_wordnet()
        self._synonyms = lru_cache(maxsize=200_000)(self._look_up)
        if self._version == "none":
            self.name = f"meteor-nowordnet.{self.name.partition('.')[2]}"

    @property
    def signature(self) -> Signature:
        from nltk import __version__

        return Signature(
            metric=self.name.split(".")[0],
            **self.form.parts(self.profile),
            case="lower",
            tok=self.tokens,
            stem="porter",
            wordnet=self._version,
            alpha=ALPHA,
            beta=BETA,
            gamma=GAMMA,
            agg="mean",
            like=f"nltk-{__version__}",
        )

    @abstractmethod
    def tokenise(self, text: str) -> list[str]:
        """The tokens, in lower case, that are aligned."""

    def pair_scores(self, hypotheses: Sequence[str], references: Sequence[str]) -> Array:
        pairs = TokenPairs([self.tokenise(text) for text in hypotheses], [self.tokenise(text) for text in references])
        stems, stem_ids = self._stems(pairs)
        related, members = self._related(stems)
        found: Array = np.zeros((len(pairs), 2))
        for block in pairs.blocks():
            found[block.rows] = _align(block, pairs.ids, stem_ids, related, members)
        return _score(found[:, 0], found[:, 1], pairs)[:, None]

    def _stems(self, pairs: TokenPairs) -> tuple[list[str], Ids]:
        """The distinct stems, and every token's stem as an index of them."""
        number: dict[str, int] = {}
        of_word = [number.setdefault(self._stem(word), len(number)) for word in pairs.words] or [0]
        return list(number), np.array(of_word, np.int32)[pairs.ids]

    def _look_up(self, word: str) -> frozenset[str]:
        lemmas = (lemma.name() for synset in self._wordnet.synsets(word) for lemma in synset.lemmas())
        return frozenset(name for name in lemmas if "_" not in name) - {word}

    def _related(self, stems: Sequence[str]) -> tuple[Bools, Ids]:
        """Which stems have which others as synonyms, (k, k), and every stem's row in it; row 0 has none.

        That stems and not words are looked up is NLTK's way: what is left after stemming goes on as stems.
        """
        number = {stem: index for index, stem in enumerate(stems)}
        pairs = [
            (index, number[other])
            for index, stem in enumerate(stems)
            for other in self._synonyms(stem)
            if other in number
        ]
        members: Ids = np.zeros(max(1, len(stems)), np.int32)
        known = sorted({index for pair in pairs for index in pair})
        members[known] = np.arange(1, len(known) + 1)
        related: Bools = np.zeros((len(known) + 1, len(known) + 1), np.bool_)
        for first, second in pairs:
            related[members[first], members[second]] = True
        return related, members


class WhitespaceMETEOR(_METEOR):
    """As HeartLLM's authors score: tokens split at white space, so that a period clings to its word."""

    profile = "heartllm"
    tokens = "whitespace"

    def tokenise(self, text: str) -> list[str]:
        """Lower case; split at white space."""
        return text.lower().split()


class NormalisedMETEOR(_METEOR):
    """Words and punctuation marks as tokens of their own."""

    profile = "standard"
    tokens = "words+punctuation"

    def tokenise(self, text: str) -> list[str]:
        """Lower case; words and single punctuation marks."""
        return _TOKEN.findall(text.lower())


def _align(block: Block, ids: Ids, stem_ids: Ids, related: Bools, members: Ids) -> Array:
    """Aligns the pairs of a block -> (B, 2): matched tokens, and the chunks that they lie in."""
    hypothesis, reference = block.tokens(ids)
    width, count = reference.shape
    places: Counts = np.zeros((len(hypothesis), count), counting_type(width))  # 1 + the place it is matched with
    open_hypothesis, open_reference = hypothesis >= 0, reference >= 0
    every = np.arange(count)
    _take(hypothesis[:, None] == reference[None], every, places, open_hypothesis, open_reference)
    some = np.flatnonzero(open_hypothesis.any(axis=0) & open_reference.any(axis=0))
    if len(some):
        part = Block(block.rows[some], block.hypothesis[:, some], block.reference[:, some])
        first, second = part.tokens(stem_ids)
        _take(first[:, None] == second[None], some, places, open_hypothesis, open_reference)
        first, second = (np.where(side >= 0, members[side], 0) for side in (first, second))
        first, second = first * open_hypothesis[:, some], second * open_reference[:, some]
        able = first.any(axis=0) & second.any(axis=0)
        some, first, second = some[able], first[:, able], second[:, able]
        if len(some):
            _take(related[first[:, None], second[None]], some, places, open_hypothesis, open_reference)
    matched = places > 0
    goes_on = matched[1:] & matched[:-1] & (places[1:] == places[:-1] + 1)
    total = matched.sum(axis=0)
    return np.stack([total, total - goes_on.sum(axis=0)], axis=1).astype(np.float64)


def _take(fits: Bools, columns: Any, places: Counts, open_hypothesis: Bools, open_reference: Bools) -> None:
    """Matches what fits (H, R, b), from the end: each token of the hypothesis takes the last one that is still open.

    Args:
        columns: (b,) which pairs of the block `fits` is about. The other arguments are of the whole block, and written.
    """
    free = open_reference[:, columns]
    rank: Counts = np.arange(1, len(free) + 1, dtype=places.dtype)[:, None]
    anywhere = fits.any(axis=1) & open_hypothesis[:, columns]
    for index in np.flatnonzero(anywhere.any(axis=1))[::-1]:
        last = ((fits[index] & free) * rank).max(axis=0)
        taken = np.flatnonzero((last > 0) & anywhere[index])
        free[last[taken] - 1, taken] = False
        places[index, columns[taken]] = last[taken]
        open_hypothesis[index, columns[taken]] = False
    open_reference[:, columns] = free


def _score(matched: Array, chunks: Array, pairs: TokenPairs) -> Array:
    some = np.maximum(matched, 1)
    precision, recall = some / np.maximum(pairs.hypothesis_lengths, 1), some / np.maximum(pairs.reference_lengths, 1)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    scores: Array = (1 - GAMMA * (chunks / some) ** BETA) * mean
    return np.where(matched > 0, scores, 0.0)
