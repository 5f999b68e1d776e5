"""The clinical metrics: F1 between the findings of two reports, and critical misses.

A finding weighs 1 where a report states it, and `hedge` where it is said with doubt ("possible", "cannot be ruled
out"). What two reports share of a finding is the smaller weight: with P and R the weights of prediction and reference,

    precision = sum min(P, R) / sum P,    recall = sum min(P, R) / sum R,    F1 = 2 sum min(P, R) / (sum P + sum R),

the usual figures where nothing is in doubt (the F1, or Dice coefficient, of fuzzy sets). Denied findings weigh nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from heartllm_eval.metrics.base import Array, Metric, Signature, text_of
from heartllm_eval.metrics.clinical.extraction import Status, findings
from heartllm_eval.metrics.clinical.lexicon import Lexicon, bundled
from heartllm_eval.schema import Prediction, Request


def weights(found: Mapping[str, Status], hedge: float) -> dict[str, float]:
    """Code -> weight of what is stated or in doubt."""
    by_status: dict[Status, float] = {"stated": 1.0, "uncertain": hedge, "denied": 0.0}
    return {code: weight for code, status in found.items() if (weight := by_status[status])}


def grouped(weighed: Mapping[str, float], lexicon: Lexicon) -> dict[str, float]:
    """Group of near synonyms -> the largest weight in it; a finding without a group stands for itself."""
    best: dict[str, float] = {}
    for code, weight in weighed.items():
        group = lexicon.groups.get(code, code)
        best[group] = max(weight, best.get(group, 0.0))
    return best


def overlap(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The summed smaller weights."""
    return sum(min(weight, theirs[code]) for code, weight in ours.items() if code in theirs)


def _f1(shared: Array, given: Array, right: Array) -> Array:
    both = given + right
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(both > 0, 2.0 * shared / both, np.nan)
    return found


class ClinicalScore(Metric):
    """Label F1 between the findings of a predicted report and its reference.

    Figures: micro `precision`, `recall`, `f1` over all findings of all samples; `macro_f1`, the mean F1 of the findings
    that occur in the references (without interval: rare ones vanish from resamples); `sample_f1`, the mean over samples
    in which either report has a finding; `group_f1`, micro F1 after near synonyms and neighbouring territories are
    merged ([groups] of the lexicon).
    Of several references the one with the highest F1 counts.

    Statistics: for every code shared, given and right weight; the same of the groups, summed; sample F1 and whether it
    counts; 1.
    """

    name = "clinical"
    kind = "report"
    figures = ("precision", "recall", "macro_f1", "sample_f1", "group_f1", "f1")
    without_interval = frozenset({"macro_f1"})
    hedge: ClassVar[float] = 0.5
    uncertain: ClassVar[str] = "half"

    def __init__(self) -> None:
        self.lexicon = bundled()
        self._column = {code: 3 * index for index, code in enumerate(self.lexicon.codes)}

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="clinical",
            lexicon=f"{self.lexicon.version}-{self.lexicon.digest}",
            uncertain=self.uncertain,
            denied="left_out",
            macro="over_findings_of_references",
            refs="best",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        return tuple(self.matrix([Prediction(request.id, prediction)], [request])[0].tolist())

    def matrix(self, predictions: Sequence[Prediction], requests: Sequence[Request]) -> Array:
        found: Array = np.zeros((len(requests), 3 * len(self._column) + 6))
        for row, prediction, request in zip(found, predictions, requests, strict=True):
            if request.references:
                self._fill(row, text_of(prediction), request.references)
        return found

    def _fill(self, row: Array, prediction: str, references: Sequence[str]) -> None:
        given = weights(findings(prediction), self.hedge)
        given_sum = sum(given.values())
        right: dict[str, float] = {}
        best = -1.0
        for reference in references:
            candidate = weights(findings(reference), self.hedge)
            total = given_sum + sum(candidate.values())
            value = 2.0 * overlap(given, candidate) / total if total else 0.0
            if value > best:
                right, best = candidate, value
        for code, weight in given.items():
            column = self._column[code]
            row[column], row[column + 1] = min(weight, right.get(code, 0.0)), weight
        for code, weight in right.items():
            row[self._column[code] + 2] = weight
        ours, theirs = grouped(given, self.lexicon), grouped(right, self.lexicon)
        sums = overlap(ours, theirs), sum(ours.values()), sum(theirs.values())
        row[-6:] = (*sums, best, float(bool(given or right)), 1.0)

    def score(self, totals: Array) -> Array:
        parts = totals[..., :-6].reshape(*totals.shape[:-1], -1, 3)
        shared, given, right = (parts[..., index] for index in range(3))
        all_shared, all_given, all_right = (part.sum(axis=-1) for part in (shared, given, right))
        occurs = right > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(all_given > 0, all_shared / all_given, np.nan)
            recall = np.where(all_right > 0, all_shared / all_right, np.nan)
            by_code = np.where(occurs, _f1(shared, given, right), 0.0)
            macro = np.where(occurs.any(axis=-1), by_code.sum(axis=-1) / occurs.sum(axis=-1), np.nan)
            by_sample = np.where(totals[..., -2] > 0, totals[..., -3] / totals[..., -2], np.nan)
        groups = _f1(totals[..., -6], totals[..., -5], totals[..., -4])
        micro = _f1(all_shared, all_given, all_right)
        found: Array = 100.0 * np.stack([precision, recall, macro, by_sample, groups, micro], axis=-1)
        return found

    def sample_scores(self, statistics: tuple[float, ...]) -> dict[str, float]:
        """The sample's own F1, where either report has a finding."""
        name = self.full_name("sample_f1")
        return {name: 100.0 * statistics[-3]} if statistics[-2] else {}


class StatedScore(ClinicalScore):
    """The same, with findings in doubt left out."""

    name = "clinical.stated"
    hedge = 0.0
    uncertain = "left_out"


class MentionedScore(ClinicalScore):
    """The same, with findings in doubt counted as stated."""

    name = "clinical.mentioned"
    hedge = 1.0
    uncertain = "as_stated"


class CriticalFindings(Metric):
    """How often a finding that must not be missed was missed, or raised falsely ([critical] of the lexicon).

    Missed: the reference states it, and the prediction does not even mention it as possible; `_missed` is per cent of
    the reports that state it. Falsely raised: the prediction states it or calls it possible, and the reference does
    neither; `_false` is per cent of the reports without it. `_missed_n` and `_false_n` are the numbers themselves.
    Where the reference is in doubt, either answer passes.
    """

    name = "clinical.critical"
    kind = "report"

    def __init__(self) -> None:
        self.lexicon = bundled()
        self.figures = tuple(
            f"{name}_{figure}"
            for name in self.lexicon.critical
            for figure in ("missed", "false", "missed_n", "false_n")
        )
        self.without_interval = frozenset(figure for figure in self.figures if figure.endswith("_n"))

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="clinical",
            variant="critical",
            lexicon=f"{self.lexicon.version}-{self.lexicon.digest}",
            missed="stated_and_not_mentioned",
            false="mentioned_and_not_in_reference",
            uncertain_reference="not_counted",
            refs="any",
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        """For each: stated in every reference, of these missed; mentioned in no reference, of these raised; then 1."""
        if not request.references:
            return (0.0,) * (4 * len(self.lexicon.critical) + 1)
        given = findings(prediction)
        right = [findings(reference) for reference in request.references]
        row: list[float] = []
        for codes in self.lexicon.critical.values():
            raised = _mentioned(given, codes)
            stated = all(_stated(found, codes) for found in right)
            absent = not any(_mentioned(found, codes) for found in right)
            row += [float(stated), float(stated and not raised), float(absent), float(absent and raised)]
        return (*row, 1.0)

    def score(self, totals: Array) -> Array:
        parts = totals[..., :-1].reshape(*totals.shape[:-1], -1, 4)
        stated, missed, absent, raised = (parts[..., index] for index in range(4))
        with np.errstate(invalid="ignore", divide="ignore"):
            misses = np.where(stated > 0, 100.0 * missed / stated, np.nan)
            alarms = np.where(absent > 0, 100.0 * raised / absent, np.nan)
        shown = np.stack([misses, alarms, missed, raised], axis=-1)
        found: Array = shown.reshape(*totals.shape[:-1], -1)
        return np.where(totals[..., -1:] > 0, found, np.nan)

    def share(self, figure: int) -> tuple[int, int] | None:
        name, kind = divmod(figure, 4)
        return {0: (4 * name + 1, 4 * name), 1: (4 * name + 3, 4 * name + 2)}.get(kind)

    def sample_scores(self, statistics: tuple[float, ...]) -> dict[str, float]:
        """1 for what was missed or raised falsely in this sample; nothing else."""
        values = dict(zip(self.figures, self.score(np.asarray(statistics, dtype=np.float64)), strict=True))
        return {self.full_name(name): 1.0 for name, value in values.items() if name.endswith("_n") and value > 0}


def _mentioned(found: Mapping[str, Status], codes: Sequence[str]) -> bool:
    return any(found.get(code, "denied") != "denied" for code in codes)


def _stated(found: Mapping[str, Status], codes: Sequence[str]) -> bool:
    return any(found.get(code) == "stated" for code in codes)
