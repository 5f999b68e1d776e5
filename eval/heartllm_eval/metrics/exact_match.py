"""Exact match on sets of answer classes, in forms that are in use and not comparable; each says which it is.

A model writes several answers as "a; b" (`ANSWER_SEPARATOR`). A comma cannot separate answers, because an ECG-QA
class holds two ("bigeminal pattern (unknown origin, supraventricular, or ventricular)"); no class holds a period or a
semicolon.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm_eval.metrics.base import MeanMetric, Signature
from heartllm_eval.schema import Request

_SPLIT = re.compile(r"[;.\n\r]")


def join_answers(answers: Iterable[str]) -> str:
    """The text that a model should write for these answers: "a; b"; the empty set is written "none"."""
    return ANSWER_SEPARATOR.join(answers) or "none"


def normalise(text: str) -> str:
    """Lower case, compatible Unicode forms, single spaces, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def parse_answers(text: str) -> frozenset[str]:
    """The set of normalised answers in a text: split at semicolons, periods and line ends; empty parts dropped."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)  # "；" and "…" are separators, too
    return frozenset(filter(None, (normalise(part) for part in _SPLIT.split(plain))))


def reference_set(references: Iterable[str]) -> frozenset[str]:
    """The set of normalised answers of a reference; no answer at all means "none", as ECG-QA writes it."""
    return frozenset().union(*(parse_answers(part) for part in references)) or frozenset({"none"})


@lru_cache(maxsize=4096)
def _option_patterns(options: tuple[str, ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    ordered = sorted({normalise(option) for option in options} - {""}, key=lambda option: (-len(option), option))
    return tuple((option, re.compile(rf"(?<!\w){re.escape(option)}(?!\w)")) for option in ordered)


def extract_options(text: str, options: tuple[str, ...]) -> frozenset[str]:
    """The options named in a text: longest first, at word boundaries, without case; what is found is used up.

    So "not sure" is never read as "no", nor "incomplete right bundle branch block" as the complete one.
    """
    rest, found = normalise(text), set()
    for option, pattern in _option_patterns(options):
        rest, count = pattern.subn("\x00", rest)
        if count:
            found.add(option)
    return frozenset(found)


class ExactMatch(MeanMetric):
    """Right or wrong."""

    kind = "qa"
    binary = True
    figures = ("exact_match",)


class StrictExactMatch(ExactMatch):
    """The sets of normalised answers are equal."""

    name = "exact_match.strict"

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="exact_match",
            variant="strict",
            case="no",
            space="collapsed",
            unicode="nfkc",
            split="[;.newline]",
            match="set",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        return float(parse_answers(prediction) == reference_set(request.references)), 1.0


class HeartLLMExactMatch(ExactMatch):
    """As HeartLLM's authors score: the text, split at periods and nothing else, equals the set of answers as written.

    Quirks kept: case counts, "yes." is wrong ({"yes", ""}), "yes.yes" is right, "a. b" is wrong (" b" is not stripped).
    """

    name = "exact_match.heartllm"

    @property
    def signature(self) -> Signature:
        return Signature(metric="exact_match", variant="heartllm", case="yes", space="ends", split="[.]", match="set")

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        return float(set(prediction.strip().split(".")) == set(request.references)), 1.0


class OfficialLLMExactMatch(ExactMatch):
    """ECG-QA's protocol for text models: the template's options found in the reply are the answers.

    The released script looks for options in class order and with case, so that it reads "not sure" as "no" and never
    finds "lead aVR"; this is the same rule with those two mended. Requests without known options are left out of n.
    """

    name = "exact_match.official_llm"

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="exact_match",
            variant="official_llm",
            case="no",
            extract="longest_first",
            boundary="word",
            match="set",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        if not request.options:
            return 0.0, 0.0
        return float(extract_options(prediction, request.options) == reference_set(request.references)), 1.0
