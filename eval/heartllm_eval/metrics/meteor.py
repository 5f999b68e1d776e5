"""METEOR by NLTK (exact, stem and WordNet-synonym matches), on two tokenisations. Best of several references."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar

from heartllm_eval.metrics.base import MeanMetric, Signature
from heartllm_eval.metrics.wordnet import load_wordnet
from heartllm_eval.schema import Request

_TOKEN = re.compile(r"\w+|[^\w\s]")


class _CachedStemmer:
    """NLTK's Porter stemmer with a memory."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


class _METEOR(MeanMetric):
    kind = "report"
    figures = ("meteor",)
    profile: ClassVar[str]
    tokens: ClassVar[str]

    def __init__(self) -> None:
        from nltk.translate.meteor_score import meteor_score

        self._score: Any = meteor_score
        self._stemmer = _CachedStemmer()
        self._wordnet, self._version = load_wordnet()
        prefix = "meteor" if self._version != "none" else "meteor-nowordnet"
        self.name = f"{prefix}.{self.profile}"

    @property
    def signature(self) -> Signature:
        from nltk import __version__

        return Signature(
            metric=self.name.split(".")[0],
            profile=self.profile,
            case="lower",
            tok=self.tokens,
            stem="porter",
            wordnet=self._version,
            alpha=0.9,
            beta=3,
            gamma=0.5,
            agg="mean",
            nltk=__version__,
        )

    def tokenise(self, text: str) -> list[str]:
        """The tokens that are aligned."""
        raise NotImplementedError

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        references = [self.tokenise(reference) for reference in request.references]
        score = self._score(references, self.tokenise(prediction), stemmer=self._stemmer, wordnet=self._wordnet)
        return float(score), 1.0


class WhitespaceMETEOR(_METEOR):
    """As HeartLLM's authors score: tokens split at white space, so that a period clings to its word."""

    profile = "heartllm"
    tokens = "whitespace"

    def tokenise(self, text: str) -> list[str]:
        """Split at white space."""
        return text.split()


class NormalisedMETEOR(_METEOR):
    """Words and punctuation marks as tokens of their own."""

    profile = "standard"
    tokens = "words+punctuation"

    def tokenise(self, text: str) -> list[str]:
        """Lower case; words and single punctuation marks."""
        return _TOKEN.findall(text.lower())
