"""From a report to its findings: phrases, territories, and what is denied or doubted.

The rules, in the order in which they act, for each sentence:

1. Phrases of the lexicon are found; a longer one hides those inside it.
2. An infarct, ischemia or injury takes its territory from the words before it ("inferior and lateral infarct"), else
   from those behind it ("infarct of the inferior wall").
3. A cue acts on the nearest finding on its side, at most four words away and not across a stop word or a comma, and
   from there through a list: "no A, B or C". A denial is stronger than a doubt.
4. Of several mentions of a finding the most certain counts; an infarct without territory is left out beside one with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from heartllm_eval.metrics.clinical.lexicon import Lexicon, bundled
from heartllm_eval.metrics.clinical.matching import LEAD, PUNCTUATION, Match, find_matches
from heartllm_eval.metrics.clinical.text import sentences

Status = Literal["stated", "uncertain", "denied"]
REACH = 4  # words between a cue and its finding; leads are not counted
_ORS = frozenset({"or", "nor", "oder", "eller"})
_STRENGTH: dict[Status, int] = {"denied": 0, "uncertain": 1, "stated": 2}


@dataclass
class Mention:
    """A finding in a sentence.

    Attributes:
        start, end: its first and last word.
        codes: what it stands for; empty for what is counted nowhere.
        family: its family, or its codes as one text: what "the same kind of finding" is.
        firm: see `heartllm_eval.metrics.clinical.lexicon.Meaning`.
        hedged: doubted, by its own words or by a cue.
        denied: by a cue.
        cues: the cues that act on it, as they stand in the sentence.
    """

    start: int
    end: int
    codes: tuple[str, ...]
    family: str
    firm: bool = False
    hedged: bool = False
    denied: bool = False
    cues: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        return "denied" if self.denied else "uncertain" if self.hedged else "stated"


@dataclass(frozen=True)
class Found:
    """One mention of a finding, as `heartllm-eval lexicon` shows it: code, status, words and cues."""

    code: str
    status: Status
    words: str
    cues: tuple[str, ...]


class _Sentence:
    def __init__(self, words: Sequence[str], lexicon: Lexicon) -> None:
        self.words = words
        self.lexicon = lexicon
        matches = find_matches(words, lexicon)
        self.regions = {match.end: match for match in matches if match.meaning.kind == "region"}
        self.cues = [match for match in matches if match.meaning.kind == "cue"]
        self.mentions = sorted(
            [*self._plain(matches), *self._in_territories(matches)], key=lambda mention: (mention.start, mention.end)
        )

    def _plain(self, matches: Sequence[Match]) -> Iterator[Mention]:
        for match in matches:
            meaning = match.meaning
            if meaning.kind in ("finding", "uncounted"):
                codes = (meaning.name,) if meaning.kind == "finding" else ()
                yield Mention(match.start, match.end, codes, meaning.name, meaning.firm, meaning.hedged)

    def _in_territories(self, matches: Sequence[Match]) -> Iterator[Mention]:
        heads = [match for match in matches if match.meaning.kind == "head"]
        before = [self._regions_before(head) for head in heads]
        claimed = {region.end for regions in before for region in regions}
        earlier: list[Match] = []
        previous = -1
        for head, regions in zip(heads, before, strict=True):
            behind = [] if regions else self._regions_behind(head, claimed)
            start = min([head.start, *(region.start for region in regions)])
            end = max([head.end, *(region.end for region in behind)])
            named = regions or behind
            if not named and self._is_list(range(previous + 1, head.start)):
                named = earlier  # "inferior ischemia or infarction"
            family = self.lexicon.families[head.meaning.name]
            codes = [code for region in named for code in family.codes[region.meaning.name]] or family.unspecified
            yield Mention(start, end, tuple(dict.fromkeys(codes)), head.meaning.name)
            earlier, previous = named, end

    def _regions_before(self, head: Match) -> list[Match]:
        found: list[Match] = []
        place, fillers = head.start - 1, 0
        while place >= 0:
            region = self.regions.get(place)
            if region is not None:
                found.append(region)
                place = region.start - 1
            elif not found and fillers < REACH and self._is_filler(place):
                place, fillers = place - 1, fillers + 1
            elif found and self.words[place] in self._joins:
                place -= 1
                if place >= 0 and self.words[place] in self._joins:
                    place -= 1
                if place not in self.regions:
                    break
            else:
                break
        return found[::-1]

    def _regions_behind(self, head: Match, claimed: set[int]) -> list[Match]:
        between = self.lexicon.families[head.meaning.name].between
        place = head.end + 1
        starts = {region.start: region for region in self.regions.values() if region.end not in claimed}
        found: list[Match] = []
        while place < len(self.words):
            if place in starts:
                found.append(starts[place])
                place = starts[place].end + 1
            elif self.words[place] == "," and starts.get(place + 1) is not None and not found:
                if starts[place + 1].end + 1 < len(self.words):  # "infarct, inferior" ends a sentence
                    break
                place += 1
            elif (not found and self.words[place] in between) or (found and self.words[place] in self._joins):
                place += 1
            else:
                break
        return found

    @property
    def _joins(self) -> frozenset[str]:
        return frozenset(words[0] for words in self.lexicon.connectors if len(words) == 1)

    def _is_filler(self, place: int) -> bool:
        word, node = self.words[place], self.lexicon.fillers
        return word in node.words or any(word[:length] in node.stems for length in range(1, len(word) + 1))

    def _is_list(self, places: range) -> bool:
        """Whether these words only join two findings of a list; nothing at all joins nothing."""
        joins = [self.words[place] in self._joins for place in places]
        rest = [place for place, join in zip(places, joins, strict=True) if not join]
        return any(joins) and all(self._is_filler(place) for place in rest)

    def _reaches(self, places: range, *, commas: bool) -> bool:
        """Whether a cue reaches over these words."""
        between = [self.words[place] for place in places]
        if any(word in self.lexicon.stops or (word in PUNCTUATION and word not in ",/") for word in between):
            return False
        if "," in between and not (
            commas and all(word == "," or self._is_filler(p) for p, word in zip(places, between, strict=True))
        ):
            return not commas and all(LEAD.fullmatch(word) for word in between)
        return sum(not LEAD.fullmatch(word) for word in between) <= REACH

    def apply_cues(self) -> None:
        """Marks the mentions that cues act on."""
        for cue in self.cues:
            scope, _, place = cue.meaning.name.partition(".")
            inside = [m for m in self.mentions if m.start < cue.start and cue.end < m.end]
            targets: list[Mention] = inside
            if not inside and place == "either":
                targets = self._behind_at_once(cue) or self._ahead(cue, scope) or self._behind(cue, scope)
            elif not inside:
                targets = self._ahead(cue, scope) if place == "before" else self._behind(cue, scope)
            for mention in targets:
                mention.denied |= scope == "denied"
                mention.hedged |= scope == "uncertain"
                mention.cues.append(" ".join(self.words[cue.start : cue.end + 1]))

    def _behind_at_once(self, cue: Match) -> list[Mention]:
        near = [m for m in self.mentions if m.end == cue.start - 1 and m.codes]
        return [] if any(m.firm for m in near) or not near else self._behind(cue, "uncertain")

    def _ahead(self, cue: Match, scope: str) -> list[Mention]:
        ahead = [m for m in self.mentions if m.start > cue.end]
        if not ahead or not self._reaches(range(cue.end + 1, ahead[0].start), commas=False):
            return []
        return self._chain(ahead, scope)

    def _behind(self, cue: Match, scope: str) -> list[Mention]:
        behind = sorted((m for m in self.mentions if m.end < cue.start), key=lambda m: (-m.end, m.start))
        if not behind or not self._reaches(range(behind[0].end + 1, cue.start), commas=True):
            return []
        return self._chain(behind, scope)

    def _chain(self, ordered: Sequence[Mention], scope: str) -> list[Mention]:
        """The first mention and those that a list joins to it; a comma joins only in a list that ends in "or" ("no A, B
        or C"), or, for a denial, in "and"."""
        chain, links = [ordered[0]], [""]
        for mention in ordered[1:]:
            last = chain[-1]
            forward = mention.start > last.end
            if not forward and mention.end >= last.start:  # the same words, or overlapping ones
                chain.append(mention)
                links.append("")
                continue
            gap = range(last.end + 1, mention.start) if forward else range(mention.end + 1, last.start)
            words = [self.words[place] for place in gap]
            if not words and any(mention.family == other.family for other in chain):
                links.append("")  # "probably lateral ischemia or LV strain inferior ischemia or LV strain"
            elif self._is_list(gap):
                links.append(
                    "or"
                    if _ORS & set(words)
                    else "and"
                    if set(words) - {",", "/"} & self._joins or "/" in words
                    else ","
                )
            else:
                break
            chain.append(mention)
        ends = {"or", "and"} if scope == "denied" else {"or"}
        last_end = max((place for place, link in enumerate(links) if link in ends), default=0)
        cut = next((place for place, link in enumerate(links) if link == "," and place > last_end), len(chain))
        return chain[:cut]


@lru_cache(maxsize=200_000)
def _in_sentence(words: tuple[str, ...], lexicon_id: str) -> tuple[tuple[str, Status], ...]:
    sentence = _Sentence(words, _LEXICONS[lexicon_id])
    sentence.apply_cues()
    return tuple(_strongest((code, mention.status) for mention in sentence.mentions for code in mention.codes).items())


_LEXICONS: dict[str, Lexicon] = {}


def _strongest(found: Iterator[tuple[str, Status]]) -> dict[str, Status]:
    best: dict[str, Status] = {}
    for code, status in found:
        if code not in best or _STRENGTH[status] > _STRENGTH[best[code]]:
            best[code] = status
    return best


@lru_cache(maxsize=100_000)
def _findings(text: str, lexicon_id: str) -> Mapping[str, Status]:
    lexicon = _LEXICONS[lexicon_id]
    split = sentences(text, lexicon.abbreviations, lexicon.end_before)
    found = _strongest(pair for words in split for pair in _in_sentence(words, lexicon_id))
    for family in lexicon.families.values():
        if family.yields and any(found.get(code, "denied") != "denied" for code in family.named & found.keys()):
            found = {code: status for code, status in found.items() if code not in family.unspecified}
    return found


def findings(text: str, lexicon: Lexicon | None = None) -> Mapping[str, Status]:
    """Code -> "stated", "uncertain" or "denied", for every finding that a report mentions. Never raises."""
    lexicon = lexicon or bundled()
    _LEXICONS.setdefault(lexicon.digest, lexicon)
    return _findings(text, lexicon.digest)


def mentions(text: str, lexicon: Lexicon | None = None) -> list[Found]:
    """Every mention in order, with the words and cues that made it: what `heartllm-eval lexicon` shows."""
    lexicon = lexicon or bundled()
    found = []
    for words in sentences(text, lexicon.abbreviations, lexicon.end_before):
        sentence = _Sentence(words, lexicon)
        sentence.apply_cues()
        for mention in sentence.mentions:
            said = " ".join(words[mention.start : mention.end + 1])
            found += [Found(code, mention.status, said, tuple(mention.cues)) for code in mention.codes]
    return found
