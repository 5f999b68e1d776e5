"""What the questions look at: tables of findings by recording, made from labels under ECG-QA's rules.

A `Finding` table says for each recording whether each candidate is present, and whether the recording is labelled for
it at all: a recording whose labels are None there is asked no such question. The rules, and where they come from:

- likelihood: a diagnostic statement is certain at 100 or 0 ("not stated") per cent and uncertain between. Template 1
  answers "not sure" for the uncertain, templates 5, 9 and 14 leave them out, 4, 8 and 13 take them in. Form and rhythm
  statements, superclasses and "normal ecg" are present whenever their code is (Oh et al. 2023).
- a diagnosis outside ECG-QA's classes (too rare there, such as "wolff-parkinson-white syndrome") cannot be given as an
  answer, so a recording that has one is not asked to list its diagnoses: any list would be wrong.
- a noise kind, or a form statement's leads, that is not labelled (see `Labels`) is not asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from heartllm.data.records import NOISE_KINDS, Entry, Labels
from heartllm.data.statements import BY_NAME, STATEMENTS, superclasses
from heartllm.data.templates import FEATURES, LEAD_GROUPS, LOCATED_FORM, NO_STAGE, NORMAL, POOLS, RANGES

# ECG-QA's normal ranges in milliseconds, inclusive (None: no bound on that side). Its range for the corrected QT is
# that of the QT at the normal range's slowest and fastest rate: 330 / sqrt(1.0 s) to 430 / sqrt(0.6 s).
NORMAL_RANGES: dict[str, tuple[float | None, float | None]] = {
    "rr interval": (600.0, 1000.0),
    "p duration": (None, 120.0),
    "pr interval": (120.0, 200.0),
    "qrs duration": (60.0, 110.0),
    "qt interval": (330.0, 430.0),
    "qt corrected": (330.0, 430.0 / math.sqrt(0.6)),
}

NOT_ABNORMAL = frozenset((NORMAL, STATEMENTS["SR"].name))  # for "any kind of abnormal symptoms"


@dataclass(frozen=True)
class Finding:
    """present: (recordings, candidates) bool. known: (recordings,) bool, False where nothing may be asked."""

    present: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]


def is_certain(likelihood: float) -> bool:
    """Whether PTB-XL's likelihood counts as sure: 100 per cent, or 0, which stands for "not stated"."""
    return likelihood in (0.0, 100.0)


def range_of(feature: str, milliseconds: float) -> str:
    """Which of the three ranges a measurement falls in."""
    low, high = NORMAL_RANGES[feature]
    if low is not None and milliseconds < low:
        return RANGES[0]
    return RANGES[2] if high is not None and milliseconds > high else RANGES[1]


def _statements(labels: Labels, view: str) -> set[str] | None:
    """The statement names (or superclasses) that count in a view; None where the recording cannot be asked."""
    if labels.statements is None:
        return None
    found = labels.statements
    known = {name: BY_NAME[name] for name in found if name in BY_NAME}
    diagnostic = {name for name, statement in known.items() if statement.diagnostic and name != NORMAL}
    if view == "statement":  # certain or not statement-wise; `uncertain` tells the rest
        certain = {name for name in found if name not in diagnostic or is_certain(found[name])}
        return certain | superclasses(diagnostic)
    if view == "normal":
        return {NORMAL} & set(found)
    if view == "superclass":
        return superclasses(diagnostic)
    if view.startswith("diagnostic"):
        return diagnostic if "including" in view else {name for name in diagnostic if is_certain(found[name])}
    return {name for name, statement in known.items() if getattr(statement, view)}


def _any(labels: Labels, view: str) -> set[str] | None:
    """Views that ask whether there is anything of a kind."""
    if view == "any noise":
        if labels.noise is None:
            return None
        if any(labels.noise.values()):
            return set(POOLS[view])
        return None if unlabelled(labels, view) else set()
    if view == "any extra systole":
        return None if labels.extra_systoles is None else set(POOLS[view]) if labels.extra_systoles else set()
    if labels.statements is None:
        return None
    if view == "any abnormal":
        return set(POOLS[view]) if set(labels.statements) - NOT_ABNORMAL else set()
    found = _statements(labels, view.removeprefix("any "))
    return set(POOLS[view]) if found else set()


def unlabelled(labels: Labels, view: str) -> set[str]:
    """Noise kinds or form statements that a recording may have, but nobody knows in which leads."""
    if "noise" in view:
        return set(NOISE_KINDS) - set(labels.noise or {})
    if view in ("form in lead", "leads of form"):
        return {name for name in labels.statements or {} if name in LOCATED_FORM} - set(labels.statement_leads or {})
    return set()


def _by_lead(labels: Labels, view: str, about: str) -> set[str] | None:
    """Views of one lead (or lead group), and of the leads of one attribute."""
    carried = labels.noise if "noise" in view else labels.statement_leads
    if carried is None:
        return None
    if view.startswith("leads of"):
        if about in unlabelled(labels, view):
            return None
        return {f"lead {lead}" for lead in carried.get(about, ())}
    leads = set(LEAD_GROUPS.get(about, (about.removeprefix("lead "),)))
    found = {name for name, where in carried.items() if leads <= where}
    if view == "any noise in lead":
        return set(POOLS[view]) if found else None if unlabelled(labels, view) else set()
    return found


def _numeric(labels: Labels, view: str, about: str) -> set[str] | None:
    values = labels.intervals
    if values is None:
        return None
    if view == "range":
        return {range_of(about, values[about])} if about in values else None
    if any(feature not in values for feature in FEATURES):
        return None
    return {feature for feature in FEATURES if range_of(feature, values[feature]) == about}


def found_in(labels: Labels, view: str, about: str) -> set[str] | None:
    """What a view of one recording finds, by candidate name; None where the recording is not labelled for it."""
    if view == "axis":
        return None if labels.heart_axis is None else {labels.heart_axis}
    if view in ("stage", "stage or none"):
        stages = labels.infarction_stages
        return None if stages is None else set(stages) or {NO_STAGE}
    if view == "noise":
        return None if labels.noise is None else {kind for kind, leads in labels.noise.items() if leads}
    if view == "extra systole":
        return None if labels.extra_systoles is None else set(labels.extra_systoles)
    if view in ("range", "features in range"):
        return _numeric(labels, view, about)
    if "lead" in view:
        return _by_lead(labels, view, about)
    return _any(labels, view) if view.startswith("any ") else _statements(labels, view)


class Findings:
    """The finding tables of some recordings, made on first use and kept."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.labels = [entry.labels for entry in entries]
        self.table = lru_cache(maxsize=None)(self._table)
        self.uncertain = lru_cache(maxsize=None)(self._uncertain)
        self.complete = lru_cache(maxsize=None)(self._complete)
        self.labelled = lru_cache(maxsize=None)(self._labelled)

    def _table(self, view: str, about: str) -> Finding:
        names = POOLS[view]
        column = {name: index for index, name in enumerate(names)}
        present = np.zeros((len(self.labels), len(names)), dtype=bool)
        known = np.zeros(len(self.labels), dtype=bool)
        for row, labels in enumerate(self.labels):
            found = found_in(labels, view, about)
            if found is None:
                continue
            known[row] = True
            present[row, [column[name] for name in found if name in column]] = True
        return Finding(present, known)

    def _uncertain(self) -> npt.NDArray[np.bool_]:
        """(recordings, attributes of template 1) bool: diagnostic statements that are present but not certain."""
        names = POOLS["statement"]
        column = {name: index for index, name in enumerate(names)}
        result = np.zeros((len(self.labels), len(names)), dtype=bool)
        for row, labels in enumerate(self.labels):
            for name, likelihood in (labels.statements or {}).items():
                if name in column and name in BY_NAME and BY_NAME[name].diagnostic and not is_certain(likelihood):
                    result[row, column[name]] = True
        return result

    def _complete(self, view: str, about: str) -> npt.NDArray[np.bool_]:
        """(recordings,) bool: whether all that the view finds is labelled and can be given as an answer."""
        names = set(POOLS[view])
        result = np.zeros(len(self.labels), dtype=bool)
        for row, labels in enumerate(self.labels):
            found = found_in(labels, view, about)
            result[row] = found is not None and found <= names and not (unlabelled(labels, view) & names)
        return result

    def _labelled(self, view: str) -> npt.NDArray[np.bool_]:
        """(recordings, candidates) bool: False where a candidate may be present but nobody knows."""
        names = POOLS[view]
        result = np.ones((len(self.labels), len(names)), dtype=bool)
        for row, labels in enumerate(self.labels):
            result[row, [names.index(name) for name in unlabelled(labels, view) if name in names]] = False
        return result


__all__ = ["NORMAL_RANGES", "Finding", "Findings", "found_in", "is_certain", "range_of", "unlabelled"]
