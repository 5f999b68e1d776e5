"""How far the lexicon, reading a report, agrees with the codes that a dataset gives the same recording.

It is no test of the lexicon alone. PTB-XL's codes were revised by cardiologists who looked at the recording, its
reports were not: a report that says "normal ECG" beside the code for an incomplete bundle branch block is read rightly
and still counts as a disagreement. So the figures come with the kinds of disagreement, and with `repeatable`: how well
any fixed reading of a text could do, where the same text occurs several times.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from heartllm.data.statements import STATEMENTS
from heartllm_eval.metrics.clinical.extraction import Status, findings, mentions
from heartllm_eval.metrics.clinical.lexicon import Lexicon, bundled
from heartllm_eval.metrics.clinical.score import grouped, overlap, weights

LIKELIHOODS = ("100, or not stated", "80", "50", "15 to 35")
NEAR, READ_ONLY, CODED_ONLY, CODED_DENIED = (
    "near synonym or neighbouring territory",
    "read in the report, not coded",
    "coded, not in the report",
    "coded, denied in the report",
)
_HALF = 0.5


@dataclass(frozen=True)
class Reading:
    """One report beside the codes of its recording (code -> likelihood in per cent, 0: not stated)."""

    text: str
    codes: Mapping[str, float]


@dataclass
class Counts:
    """Of one finding, or of all: in both, in the report only, in the codes only."""

    both: float = 0
    report_only: float = 0
    codes_only: float = 0

    def add(self, other: Counts) -> None:
        """Adds the counts of more reports or findings."""
        self.both += other.both
        self.report_only += other.report_only
        self.codes_only += other.codes_only

    @property
    def figures(self) -> tuple[float, float, float]:
        """Precision, recall, F1 in per cent; NaN without a denominator."""
        given, right = self.both + self.report_only, self.both + self.codes_only
        parts = ((self.both, given), (self.both, right), (2 * self.both, given + right))
        precision, recall, f1 = (100.0 * above / below if below else float("nan") for above, below in parts)
        return precision, recall, f1


@dataclass
class Agreement:
    """Everything that is counted over some readings.

    Attributes:
        by_code: a finding counts as read if the report states it or calls it possible, as coded at any likelihood.
        weighed: all findings with the metric's weights (in doubt, and likelihoods of 1 to 99: one half).
        merged: the same by groups of near synonyms.
        by_likelihood: likelihood of the code -> (found, coded).
        disagreements: (kind, code read or "", code given or "") -> how often.
        phrases: code -> words it was read in without being coded -> how often.
        added: codes that PTB-XL has not -> how often read.
    """

    reports: int = 0
    by_code: dict[str, Counts] = field(default_factory=dict)
    weighed: Counts = field(default_factory=Counts)
    merged: Counts = field(default_factory=Counts)
    by_likelihood: dict[str, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(LIKELIHOODS, (0, 0)))
    disagreements: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    phrases: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    added: Counter[str] = field(default_factory=Counter)

    @property
    def micro(self) -> Counts:
        """All findings together."""
        total = Counts()
        for counts in self.by_code.values():
            total.add(counts)
        return total

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the findings that are coded at least once."""
        values = [counts.figures[2] for counts in self.by_code.values() if counts.both + counts.codes_only]
        return sum(values) / len(values) if values else float("nan")


def coded_weights(codes: Mapping[str, float]) -> dict[str, float]:
    """The metric's weights of codes, by ECG-QA's reading: likelihoods 100 and 0 are present, 1 to 99 "not sure"."""
    return {code: 1.0 if likelihood in (0.0, 100.0) else _HALF for code, likelihood in codes.items()}


def compare(readings: Iterable[Reading], lexicon: Lexicon | None = None) -> Agreement:
    """Counts over readings."""
    lexicon = lexicon or bundled()
    result = Agreement()
    for reading in readings:
        found = findings(reading.text, lexicon)
        read = weights(found, _HALF)
        result.added.update(code for code in read if code not in STATEMENTS)
        given = {code: weight for code, weight in read.items() if code in STATEMENTS}
        right = coded_weights(reading.codes)
        result.reports += 1
        for code in given.keys() | right.keys():
            both = code in given and code in right
            counts = result.by_code.setdefault(code, Counts())
            counts.add(Counts(both, code not in right, code not in given))
        for code, likelihood in reading.codes.items():
            name = _likelihood(likelihood)
            hits, of = result.by_likelihood[name]
            result.by_likelihood[name] = (hits + (code in given), of + 1)
        for total, ours, theirs in (
            (result.weighed, given, right),
            (result.merged, grouped(given, lexicon), grouped(right, lexicon)),
        ):
            shared = overlap(ours, theirs)
            total.add(Counts(shared, sum(ours.values()) - shared, sum(theirs.values()) - shared))
        kinds = _kinds(given, right, found, lexicon)
        result.disagreements.update(kinds)
        alone = {code for kind, code, _ in kinds if kind == READ_ONLY}
        for mention in mentions(reading.text, lexicon) if alone else ():
            if mention.code in alone and mention.status != "denied" and len(mention.words.split()) <= 5:
                result.phrases[mention.code][mention.words] += 1
    return result


def _likelihood(value: float) -> str:
    if value in (0.0, 100.0):
        return LIKELIHOODS[0]
    return LIKELIHOODS[1] if value > 50 else LIKELIHOODS[2] if value > 35 else LIKELIHOODS[3]


def _kinds(
    given: Mapping[str, float], right: Mapping[str, float], found: Mapping[str, Status], lexicon: Lexicon
) -> list[tuple[str, str, str]]:
    """What kind each disagreement of one report is; a near synonym pairs one finding read with one coded."""
    coded_only = sorted(right.keys() - given.keys())
    kinds = []
    for code in sorted(given.keys() - right.keys()):
        group = lexicon.groups.get(code)
        near = next((other for other in coded_only if group and lexicon.groups.get(other) == group), None)
        if near is None:
            kinds.append((READ_ONLY, code, ""))
        else:
            kinds.append((NEAR, code, near))
            coded_only.remove(near)
    return kinds + [(CODED_DENIED if found.get(code) == "denied" else CODED_ONLY, "", code) for code in coded_only]


def repeatable(readings: Sequence[Reading], lexicon: Lexicon | None = None) -> tuple[int, float, float]:
    """Of the reports whose text occurs more than once: their number, micro F1 of the lexicon, and of the best fixed
    reading of each text.

    The best fixed reading is made knowing the codes: it has every code that at least a share t of a text's recordings
    carry, with the t that gives the highest F1 (F1 / 2 at the optimum). No reader of the text alone can do better.
    """
    by_text: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_text[" ".join(reading.text.lower().split())].append(reading)
    repeated = [group for group in by_text.values() if len(group) > 1]
    if not repeated:
        return 0, float("nan"), float("nan")
    ours = compare((reading for group in repeated for reading in group), lexicon).micro.figures[2]
    best = 0.0
    for share in (step / 100 for step in range(1, 100)):
        counts = Counts()
        for group in repeated:
            carried = Counter(code for reading in group for code in reading.codes)
            chosen = [code for code, count in carried.items() if count >= share * len(group)]
            both = sum(carried[code] for code in chosen)
            counts.add(Counts(both, len(chosen) * len(group) - both, sum(carried.values()) - both))
        best = max(best, counts.figures[2])
    return sum(map(len, repeated)), ours, best
