"""Finds the phrases of a lexicon in the words of a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from heartllm_eval.metrics.clinical.lexicon import Lexicon, Meaning, Node

# Leads and numbers in a list of leads; they may stand in any gap: "t waves are low in i, avl, v4,5,6".
LEAD = re.compile(r"v?[0-9]+|i{1,3}|av[lrf]|[lf]|,|/")
PUNCTUATION = frozenset(",:/?-")


@dataclass(frozen=True)
class Match:
    """A phrase that was found.

    Attributes:
        positions: the places of its words in the sentence, without those in its gaps.
        meaning: what it stands for.
    """

    positions: tuple[int, ...]
    meaning: Meaning

    @property
    def start(self) -> int:
        return self.positions[0]

    @property
    def end(self) -> int:
        """The place of its last word."""
        return self.positions[-1]


class _Walk:
    """All phrases from one word on."""

    def __init__(self, words: Sequence[str], stops: frozenset[str]) -> None:
        self.words = words
        self.stops = stops
        self.found: dict[Match, None] = {}

    def go(self, node: Node, place: int, positions: tuple[int, ...]) -> None:
        for meaning in node.meanings:
            self.found[Match(positions, meaning)] = None
        for size, following in node.gaps.items():
            self._leap(following, place, positions, size)
        if place >= len(self.words):
            return
        word = self.words[place]
        if word in node.words:
            self.go(node.words[word], place + 1, (*positions, place))
        if word in PUNCTUATION:
            if word == "/" and positions and "/" not in node.words:  # "atrial flutter/fibrillation"
                self.go(node, place + 1, positions)
            return
        if node.stems:
            for length in range(len(word) + 1):
                if word[:length] in node.stems:
                    self.go(node.stems[word[:length]], place + 1, (*positions, place))

    def _leap(self, node: Node, place: int, positions: tuple[int, ...], size: int) -> None:
        while place < len(self.words):
            self.go(Node(words=node.words, stems=node.stems), place, positions)
            word = self.words[place]
            if not LEAD.fullmatch(word):
                if word in self.stops or word in PUNCTUATION or size == 0:
                    return
                size -= 1
            place += 1


def find_matches(words: Sequence[str], lexicon: Lexicon) -> list[Match]:
    """The phrases in a sentence, by place, without those that lie wholly inside a longer one that is not `beside`."""
    walk = _Walk(words, lexicon.stops)
    for place in range(len(words)):
        walk.go(lexicon.tree, place, ())
    ordered = sorted(walk.found, key=lambda match: -len(match.positions))
    kept: list[tuple[frozenset[int], Match]] = []
    for match in ordered:
        places = frozenset(match.positions)
        if not any(_hides(other, places, match) for other in kept):
            kept.append((places, match))
    return sorted((match for _, match in kept), key=lambda match: (match.start, match.end))


def _hides(other: tuple[frozenset[int], Match], places: frozenset[int], match: Match) -> bool:
    hiding, longer = other
    if longer.meaning.beside or match.meaning.beside:
        return False
    if longer.meaning.kind == match.meaning.kind == "head" and longer.meaning.name == match.meaning.name:
        return bool(places & hiding)
    if longer.meaning.kind == "ignored" and places == hiding:
        return match.meaning.kind != "ignored"
    return places < hiding
