"""The lexicon: findings, cues and territories as phrases in plain words, read from `lexicon.toml` into one word tree.

How phrases are written stands at the head of the file. Every phrase is spelled out here into plain sequences of words,
so that matching is a walk through a tree: no pattern language with hidden behaviour, and time linear in the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from heartllm.config import read_toml
from heartllm.data.statements import STATEMENTS
from heartllm.errors import UsageError
from heartllm_eval.metrics.clinical.text import fold

LEXICON = Path(__file__).with_name("lexicon.toml")
GAPS = {"..": 2, "...": 6}  # words that may stand in a gap; leads, digits and commas are not counted
CERTAIN, HEDGED = "said", "hedged"

_HYPHEN = re.compile(r"(?<=[a-z0-9])-(?=[a-z0-9])")
_SIGNS = re.compile(r"\.{2,3}|<[a-z]+>|[()\[\]|]|[,:/?-]|[a-z0-9]*\*|[a-z0-9]+")


@dataclass(frozen=True)
class Meaning:
    """What a phrase stands for.

    Attributes:
        kind: "finding", "head" (of a family), "region", "cue", "uncounted" or "ignored".
        name: the code, family, territory, or the cue's class and place ("denied.before").
        hedged: the phrase itself says it with doubt.
        firm: a cue that could belong to either neighbour leaves it alone.
        beside: it hides no shorter phrase inside it.
    """

    kind: str
    name: str
    hedged: bool = False
    firm: bool = False
    beside: bool = False


@dataclass
class Node:
    """A node of the word tree."""

    words: dict[str, Node] = field(default_factory=dict)
    stems: dict[str, Node] = field(default_factory=dict)
    gaps: dict[int, Node] = field(default_factory=dict)
    meanings: list[Meaning] = field(default_factory=list)

    def add(self, words: Sequence[str], meaning: Meaning) -> None:
        """Adds one spelled-out phrase."""
        node = self
        for word in words:
            if word in GAPS:
                node = node.gaps.setdefault(GAPS[word], Node())
            elif word.endswith("*"):
                node = node.stems.setdefault(word[:-1], Node())
            else:
                node = node.words.setdefault(word, Node())
        if meaning not in node.meanings:
            node.meanings.append(meaning)


@dataclass(frozen=True)
class Family:
    """Findings named by territory.

    Attributes:
        codes: territory -> codes.
        between: words that may stand between the head and a territory behind it.
        unspecified: the codes where no territory is named.
        yields: these are left out of a report that names a territory elsewhere.
    """

    codes: Mapping[str, tuple[str, ...]]
    between: frozenset[str]
    unspecified: tuple[str, ...]
    yields: bool = False

    @cached_property
    def named(self) -> frozenset[str]:
        """The codes of a named territory."""
        return frozenset(code for codes in self.codes.values() for code in codes) - frozenset(self.unspecified)


@dataclass(frozen=True)
class Lexicon:
    """All that `lexicon.toml` says, checked.

    Attributes:
        tree: every phrase.
        codes: every code that can be found, in order.
        names: code -> name.
        critical: name -> codes of what must not be missed.
        groups: code -> the name of its group of near synonyms.
        version, digest: what a signature says.
    """

    version: str
    digest: str
    tree: Node
    codes: tuple[str, ...]
    names: Mapping[str, str]
    families: Mapping[str, Family]
    critical: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, str]
    connectors: frozenset[tuple[str, ...]]
    fillers: Node
    stops: frozenset[str]
    abbreviations: frozenset[str]
    end_before: tuple[str, ...]


class _Speller:
    """Spells phrases out into sequences of words."""

    def __init__(self, words: Mapping[str, Iterable[str]], where: Path) -> None:
        self.where = where
        self.words: dict[str, list[tuple[str, ...]]] = {}
        for name, phrases in words.items():
            self.words[name] = [spelled for phrase in phrases for spelled in self.spell(phrase)]

    def spell(self, phrase: str) -> list[tuple[str, ...]]:
        """Every way to say a phrase, each at least one word long."""
        folded = _HYPHEN.sub(" ", fold(phrase))
        signs = _SIGNS.findall(folded)
        if "".join(signs) != "".join(folded.split()):
            raise self._error(phrase, "holds a sign that has no meaning here")
        found, rest = self._choice(signs, phrase)
        if rest:
            raise self._error(phrase, f"has a stray {rest[0]!r}")
        found = [words for words in dict.fromkeys(found) if words]
        if not found or any(words[0] in GAPS or words[-1] in GAPS for words in found):
            raise self._error(phrase, "is empty, or begins or ends with a gap")
        return found

    def _choice(self, signs: list[str], phrase: str) -> tuple[list[tuple[str, ...]], list[str]]:
        every: list[tuple[str, ...]] = []
        ways: list[tuple[str, ...]] = [()]
        while signs and signs[0] not in ")]":
            sign, signs = signs[0], signs[1:]
            if sign == "|":
                every, ways = every + ways, [()]
                continue
            if sign in "([":
                options, signs = self._choice(signs, phrase)
                if not signs or signs[0] != {"(": ")", "[": "]"}[sign]:
                    raise self._error(phrase, f"has no end to its {sign!r}")
                signs = signs[1:]
                options = [*options, ()] if sign == "[" else options
            elif sign.startswith("<"):
                if sign[1:-1] not in self.words:
                    raise self._error(phrase, f"names {sign}, which is not in [words]")
                options = self.words[sign[1:-1]]
            else:
                options = [(sign,)]
            ways = [way + option for way in ways for option in options]
        return every + ways, signs

    def _error(self, phrase: str, what: str) -> UsageError:
        return UsageError(f"the phrase {phrase!r} {what}", where=self.where, remedy="The head of the file explains.")


def _meanings(table: Mapping[str, Any]) -> Iterator[tuple[Iterable[str], Meaning]]:
    """Every list of phrases with what it stands for."""
    for code, finding in table["findings"].items():
        for how in (CERTAIN, HEDGED):
            yield (
                finding.get(how, ()),
                Meaning("finding", code, how == HEDGED, finding.get("firm", False), finding.get("beside", False)),
            )
    for family, entry in table["families"].items():
        yield entry["heads"], Meaning("head", family)
    for region, phrases in table["regions"].items():
        yield phrases, Meaning("region", region)
    for scope in ("denied", "uncertain"):
        for place in ("before", "after", "either"):
            yield table["scopes"][scope].get(place, ()), Meaning("cue", f"{scope}.{place}")
    yield table["scopes"]["uncertain"]["not_meant"], Meaning("ignored", "doubt about something else")
    yield table["uncounted"]["phrases"], Meaning("uncounted", "uncounted")
    yield table["ignored"]["phrases"], Meaning("ignored", "ignored")


def _check_codes(table: Mapping[str, Any], names: Mapping[str, str], where: Path) -> None:
    used = {code: f"findings.{code}" for code in table["findings"]}
    for family, entry in table["families"].items():
        for region, codes in [*entry["codes"].items(), ("unspecified", entry["unspecified"])]:
            used.update((code, f"families.{family}.{region}") for code in codes)
        for region in table["regions"]:
            if region not in entry["codes"]:
                raise UsageError(f"families.{family} has no code for {region}", where=where, remedy="Add it.")
    for part in ("critical", "groups"):
        used.update((code, f"{part}.{name}") for name, codes in table[part].items() for code in codes)
    for code, place in used.items():
        if code not in names:
            raise UsageError(
                f"{place} names the unknown code {code!r}",
                where=where,
                remedy="It is one of PTB-XL's, or add it to [added].",
            )


def read_lexicon(path: Path = LEXICON) -> Lexicon:
    """Reads and checks a lexicon.

    Raises:
        UsageError: for unknown codes, phrases that cannot be read, missing tables.
    """
    table = read_toml(path)
    try:
        return _build(table, path)
    except (KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"a part is missing or of the wrong form: {error}", where=path, remedy="Compare it with the bundled one."
        ) from None


def _build(table: Mapping[str, Any], path: Path) -> Lexicon:
    names = {**{code: statement.name for code, statement in STATEMENTS.items()}, **table["added"]}
    _check_codes(table, names, path)
    speller = _Speller(table["words"], path)
    tree, fillers = Node(), Node()
    for phrases, meaning in _meanings(table):
        for phrase in phrases:
            for words in speller.spell(phrase):
                tree.add(words, meaning)
    for phrase in table["scopes"]["fillers"]:
        fillers.add((fold(phrase),), Meaning("uncounted", "filler"))
    families = {
        name: Family(
            {region: tuple(codes) for region, codes in entry["codes"].items()},
            frozenset(entry["between"]),
            tuple(entry["unspecified"]),
            bool(entry.get("yields", False)),
        )
        for name, entry in table["families"].items()
    }
    in_families = {
        code for family in families.values() for codes in (*family.codes.values(), family.unspecified) for code in codes
    }
    return Lexicon(
        version=str(table["version"]),
        digest=hashlib.sha256(path.read_bytes()).hexdigest()[:8],
        tree=tree,
        codes=tuple(code for code in names if code in table["findings"] or code in in_families),
        names=names,
        families=families,
        critical={name: tuple(codes) for name, codes in table["critical"].items()},
        groups={code: group for group, codes in table["groups"].items() for code in codes},
        connectors=frozenset(tuple(fold(phrase).split()) for phrase in table["scopes"]["connectors"]),
        fillers=fillers,
        stops=frozenset(table["scopes"]["stops"]),
        abbreviations=frozenset(table["text"]["abbreviations"]),
        end_before=tuple(table["text"]["end_before"]),
    )


@cache
def bundled() -> Lexicon:
    """The lexicon that comes with the package."""
    return read_lexicon()
