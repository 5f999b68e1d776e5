"""Building ECG-QA questions from labels.

`QuestionBuilder` writes rows in ECG-QA's form (all 42 one-ECG templates, where the labels allow) and draws them as
ECG-QA does: by cells of template, attribute and answer, so that answers are near balanced whatever the prevalence.
Rows are marked `derived`. The sizes are those that the released PTB-XL test rows show (20 "yes" and 40 "no", 2 for each
answer of a choice, about 40 for a combination of answers), scaled by `per_cell`:

- verify: up to `per_cell` recordings for "yes" and for "not sure", and `no_per_yes` times as many "no" as "yes"; never
  more "yes" than there are "no", so that no question can be answered with "yes" unseen. Half of the "no" to a question
  about one lead have the attribute in other leads.
- choose: a tenth of `per_cell` for each answer (a, b, both, none). Which candidate is named first is drawn too. Other
  than in ECG-QA, a template uses a recording once: from few recordings its 630 pairs of diagnoses, most of them rare,
  would ask the same few patients over and over.
- query: twice `per_cell` for each combination of answers, but none more often than all others together.
- attributes (pairs, combinations) with fewer than `min_positives` positive recordings are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from heartllm.data.question_views import Findings
from heartllm.data.records import Entry, Question
from heartllm.data.templates import (
    LEAD_GROUPS,
    LEAD_NAMES,
    NO,
    NONE,
    NOT_SURE,
    POOLS,
    YES,
    Asked,
    all_asked,
    in_order,
    may_be_none,
    options,
    templates,
)
from heartllm.errors import UsageError

__all__ = ["Cell", "QuestionBuilder", "answer_to", "cells", "find_asked", "options"]

_PARTLY_LABELLED = ("noise", "noise in lead", "form in lead")  # some candidates may lack a label, others not
_LEAD = re.compile(rf"\b(?:{'|'.join((*LEAD_GROUPS, *LEAD_NAMES[::-1]))})\b")
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Cell:
    """The recordings (row numbers) that give one answer to one thing asked."""

    answer: tuple[str, ...]
    rows: Rows


def cells(asked: Asked, findings: Findings) -> list[Cell]:
    """The answers to `asked`, with the recordings that give them; recordings not labelled for it are in none."""
    view = asked.template.view
    table = findings.table(view, asked.about)
    known = table.known
    if asked.template.form == "query":
        return _query_cells(asked, table.present, known & findings.complete(view, asked.about))
    pool = POOLS[view]
    columns = [pool.index(name) for name in asked.candidates]
    if view in _PARTLY_LABELLED:
        known = known & findings.labelled(view)[:, columns].all(axis=1)
    if asked.template.form == "choose":
        first, second = table.present[:, columns[0]], table.present[:, columns[1]]
        a, b = asked.candidates
        return [
            Cell((a,), np.flatnonzero(known & first & ~second)),
            Cell((b,), np.flatnonzero(known & second & ~first)),
            Cell(in_order({a, b}), np.flatnonzero(known & first & second)),
            Cell((NONE,), np.flatnonzero(known & ~first & ~second)),
        ]
    present = table.present[:, columns[0]]
    if asked.template.id != 1:
        return [Cell((YES,), np.flatnonzero(known & present)), Cell((NO,), np.flatnonzero(known & ~present))]
    unsure = findings.uncertain()[:, columns[0]]
    return [
        Cell((YES,), np.flatnonzero(known & present)),
        Cell((NOT_SURE,), np.flatnonzero(known & ~present & unsure)),
        Cell((NO,), np.flatnonzero(known & ~present & ~unsure)),
    ]


def _query_cells(asked: Asked, present: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]) -> list[Cell]:
    rows = np.flatnonzero(known)
    if not len(rows):
        return []
    kinds, kind_of = np.unique(present[rows], axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    found = []
    for number, kind in enumerate(kinds):
        answer = in_order(frozenset(name for name, holds in zip(asked.candidates, kind, strict=True) if holds))
        if answer or may_be_none(asked.template):
            found.append(Cell(answer or (NONE,), rows[kind_of == number]))
    return found


class QuestionBuilder:
    """Writes and draws derived ECG-QA questions.

    Args:
        templates: the template numbers to use; all 42 by default.
        min_positives: an attribute (pair, combination of answers) with fewer positive recordings is not drawn.
        no_per_yes: how many "no" are drawn for a "yes" of a verify question, at most.
    """

    def __init__(
        self, *, templates: Sequence[int] | None = None, min_positives: int = 2, no_per_yes: float = 2.0
    ) -> None:
        chosen = set(templates) if templates is not None else None
        self.asked = tuple(asked for asked in all_asked() if chosen is None or asked.template.id in chosen)
        if chosen is not None and (unknown := chosen - {asked.template.id for asked in self.asked}):
            raise UsageError(f"unknown templates {sorted(unknown)}", where="templates", remedy="They are 1 to 42.")
        if min_positives < 1:
            raise UsageError("min_positives is below 1", where="min_positives", remedy="Take 1 or more.")
        if not no_per_yes > 0:
            raise UsageError("no_per_yes is not positive", where="no_per_yes", remedy="Take 2, as ECG-QA does.")
        self.min_positives, self.no_per_yes = min_positives, no_per_yes

    def all_questions(self, entry: Entry) -> list[Question]:
        """Every question that the entry's labels answer, in template wording, ordered by template and attribute.

        All pairs of the choose templates are among them: about 1,700 questions for a PTB-XL recording.
        """
        findings = Findings([entry])
        found = ((asked, cell) for asked in self.asked for cell in cells(asked, findings) if len(cell.rows))
        return [_question(asked, asked.text, cell.answer, entry, number) for number, (asked, cell) in enumerate(found)]

    def draw(self, entries: Sequence[Entry], *, per_cell: int, seed: int, paraphrase: bool = False) -> list[Question]:
        """Draws questions by template, attribute and answer, without replacement within a cell.

        Args:
            per_cell: the most recordings that answer one verify question with "yes"; the rest follows (see above).
            seed: the same entries (in any order) and seed give the same questions.
            paraphrase: word the questions in our paraphrases, drawn at random, instead of ECG-QA's sentences.
        """
        if per_cell < 1:
            raise UsageError("per_cell is below 1", where="per_cell", remedy="Take 1 or more.")
        entries = sorted(entries, key=lambda entry: (entry.source, entry.record_id))
        findings, random = Findings(entries), np.random.default_rng(seed)
        drawn: list[Question] = []
        for asked, answer, row in self._draw_rows(findings, per_cell, random):
            text = asked.paraphrase(int(random.integers(1 << 30))) if paraphrase else asked.text
            drawn.append(_question(asked, text, answer, entries[row], len(drawn)))
        return drawn

    def _draw_rows(
        self, findings: Findings, per_cell: int, random: np.random.Generator
    ) -> Iterator[tuple[Asked, tuple[str, ...], int]]:
        by_template: dict[int, list[Asked]] = {}
        for asked in self.asked:
            by_template.setdefault(asked.template.id, []).append(asked)
        for group in by_template.values():
            choose = group[0].template.form == "choose"
            free = np.ones(len(findings.labels), dtype=bool)
            for index in random.permutation(len(group)) if choose else range(len(group)):
                for cell in self._draw_cells(group[index], findings, per_cell, random, free):
                    if choose:
                        free[cell.rows] = False
                    for row in cell.rows:
                        swap = choose and random.random() < 0.5
                        yield group[index].swapped() if swap else group[index], cell.answer, int(row)

    def _draw_cells(
        self,
        asked: Asked,
        findings: Findings,
        per_cell: int,
        random: np.random.Generator,
        free: npt.NDArray[np.bool_],
    ) -> list[Cell]:
        """What is drawn for one thing asked; `free` marks the recordings that may still be used."""
        filled = [cell for cell in cells(asked, findings) if len(cell.rows)]
        if asked.template.form == "query":
            return self._draw_query(filled, per_cell, random)
        positive = [cell for cell in filled if cell.answer not in ((NONE,), (NO,))]
        if sum(len(cell.rows) for cell in positive) < self.min_positives:
            return []
        if asked.template.form == "verify":
            return self._draw_verify(asked, filled, findings, per_cell, random)
        left = [Cell(cell.answer, cell.rows[free[cell.rows]]) for cell in filled]
        if not any(len(cell.rows) for cell in left if cell.answer != (NONE,)):
            return []
        return [Cell(cell.answer, _take(cell.rows, max(1, per_cell // 10), random)) for cell in left]

    def _draw_query(self, filled: list[Cell], per_cell: int, random: np.random.Generator) -> list[Cell]:
        kept = [cell for cell in filled if cell.answer == (NONE,) or len(cell.rows) >= self.min_positives]
        shares = [min(2 * per_cell, len(cell.rows)) for cell in kept]
        return [
            Cell(cell.answer, _take(cell.rows, min(share, sum(shares) - share), random))
            for cell, share in zip(kept, shares, strict=True)
        ]

    def _draw_verify(
        self, asked: Asked, filled: list[Cell], findings: Findings, per_cell: int, random: np.random.Generator
    ) -> list[Cell]:
        sizes = {cell.answer[0]: len(cell.rows) for cell in filled}
        yes = min(per_cell, sizes.get(YES, 0), sizes.get(NO, 0))
        unsure = min(per_cell, sizes.get(NOT_SURE, 0), math.ceil(self.no_per_yes * yes) if yes else per_cell)
        no = math.ceil(self.no_per_yes * (yes or unsure))
        shares = {YES: yes, NOT_SURE: unsure, NO: no}
        return [
            Cell(cell.answer, self._take_cell(asked, cell, findings, shares[cell.answer[0]], random)) for cell in filled
        ]

    def _take_cell(self, asked: Asked, cell: Cell, findings: Findings, most: int, random: np.random.Generator) -> Rows:
        view = asked.template.view
        if cell.answer != (NO,) or "in lead" not in view:
            return _take(cell.rows, most, random)
        whole = {"any noise in lead": "any noise", "noise in lead": "noise", "form in lead": "form"}[view]
        elsewhere = findings.table(whole, "").present[cell.rows, POOLS[whole].index(asked.candidates[0])]
        near = _take(cell.rows[elsewhere], most // 2, random)
        return np.concatenate([near, _take(cell.rows[~elsewhere], most - len(near), random)])


def _take(rows: Rows, most: int, random: np.random.Generator) -> Rows:
    """Up to `most` of the rows, drawn without replacement."""
    return rows if len(rows) <= most else np.sort(random.choice(rows, size=most, replace=False))


def _question(asked: Asked, text: str, answer: tuple[str, ...], entry: Entry, sample_id: int) -> Question:
    template = asked.template
    return Question(
        template_id=template.id,
        question_id=asked.question_id,
        sample_id=sample_id,
        question_type=template.type,
        attribute_type=template.attribute_type,
        question=text,
        answer=answer,
        ecg_id=(entry.record_id,),
        attribute=asked.attribute,
        derived=True,
    )


@cache
def _asked_by_key() -> dict[tuple[int, tuple[str, ...], str], Asked]:
    keys: dict[tuple[int, tuple[str, ...], str], Asked] = {}
    for asked in all_asked():
        for order in (asked, asked.swapped()) if asked.template.form == "choose" else (asked,):
            keys[asked.template.id, order.attribute, asked.slots.get("lead", "")] = order
    return keys


def find_asked(question: Question) -> Asked | None:
    """What an ECG-QA row asks, however it is worded: by template, attribute and the lead that its text names."""
    template = templates().get(question.template_id)
    if template is None:
        return None
    lead = _LEAD.search(question.question) if "{lead}" in template.text else None
    return _asked_by_key().get((template.id, question.attribute, lead[0] if lead else ""))


def answer_to(asked: Asked, entry: Entry) -> tuple[str, ...] | None:
    """The answer that an entry's labels give, in our fixed order; None where it is not labelled for the question."""
    return next((cell.answer for cell in cells(asked, Findings([entry])) if len(cell.rows)), None)
