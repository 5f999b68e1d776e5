"""From a report to sentences of plain words: case, accents, umlauts, hyphens and broken characters folded away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

# "#" stands for an umlaut that an export broke ("f#r", "#bergang"), in PTB-XL's originals.
_LETTERS = str.maketrans({
    "ä": "ae", "ö": "oe", "ü": "ue", "æ": "ae", "ø": "oe", "å": "a", "ß": "ss", "#": "ue", "&": " and ",
    "’": "'", "´": "'", "`": "'", "–": " - ", "—": " - ", "…": " ",
})  # fmt: skip
_TOKEN = re.compile(r"[a-z0-9]+|[.!;,:?/\n]| -+(?= )")
_SPACES = re.compile(r"[^\S\n]+")
_APOSTROPHES = re.compile(r"(?<=[a-z])'")
_ENDS = frozenset(".!;\n")
_COUNTED = re.compile(r"[0-9]|i{1,3}")
_DEGREE = re.compile(r"grad|degree")
BREAK, DASH = "\n", "-"


def fold(text: str) -> str:
    """Lower case without accents; ä, ö, ü become ae, oe, ue, å becomes a. Folding again changes nothing."""
    folded = text.lower().translate(_LETTERS)
    for _ in range(4):  # a compatibility form can fold to another one; two rounds are enough for all of Unicode
        if folded.isascii():
            return folded
        before = folded
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", folded).casefold()).translate(_LETTERS)
        folded = "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c)).lower()
        if folded == before:
            break
    return folded


def sentences(text: str, abbreviations: Collection[str], end_before: Collection[str]) -> list[tuple[str, ...]]:
    """The sentences of a report as words and the punctuation that matters: comma, colon, slash, question mark, dash.

    A period ends a sentence unless it stands in a number, after an abbreviation, or in "1. degree"; semicolons and line
    ends do. Hyphens inside words are spaces; brackets and quotation marks are nothing.
    """
    folded = _SPACES.sub(" ", fold(text.replace("\r\n", "\n").replace("\r", "\n")))
    for end in end_before:
        folded = folded.partition(end)[0]
    words = _TOKEN.findall(_APOSTROPHES.sub("", folded) if "'" in folded else folded)
    found: list[tuple[str, ...]] = []
    current: list[str] = []
    for index, word in enumerate(words):
        if word not in _ENDS:
            current.append(DASH if word[0] == " " else word)
            continue
        if word == "." and current:
            last, following = current[-1], words[index + 1] if index + 1 < len(words) else BREAK
            if last in abbreviations or (last.isdigit() and following.isdigit()):
                continue
            if _COUNTED.fullmatch(last) and _DEGREE.match(following):
                continue
        if current:
            found.append(tuple(current))
        current = []
    if current:
        found.append(tuple(current))
    return found
