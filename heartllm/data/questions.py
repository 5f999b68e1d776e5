"""Building ECG-QA questions from labels.

`QuestionBuilder` writes rows in ECG-QA's form (all 42 one-ECG templates, where the labels allow) and draws them as
ECG-QA does: by cells of template, attribute and answer, so that answers are near balanced whatever the prevalence. Rows are
marked `derived`. Sampling follows Oh et al. (2023) and the sizes seen in the released rows:

- A "verify" cell holds up to `per_cell` recordings, a "query" cell (one combination of answers) half as many, a
  "choose" cell (a, b or both) a quarter as many; "none" of a choose question gets half of that again.
- No answer of a verify or choose question is drawn more often than `balance` times the rarest positive one. ECG-QA does
  so at 1 in validation and test; in training it does not, and its rare noises then have about two "no" to a "yes".
- "No" of a question about one lead comes half from recordings that have the attribute in other leads.
- A choose template uses a recording once: with 630 pairs of diagnoses its rows would otherwise swamp all others.
- Attributes with fewer than `min_positives` positive recordings are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartllm.data.question_views import Findings
from heartllm.data.records import Entry, Question
from heartllm.data.templates import NO, NONE, NOT_SURE, POOLS, YES, Asked, all_asked, in_order, may_be_none, options
from heartllm.errors import UsageError

__all__ = ["Cell", "QuestionBuilder", "options"]

_PARTLY_LABELLED = ("noise", "noise in lead", "form in lead")  # some candidates may lack a label, others not
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
        min_positives: an attribute (or pair, or combination of answers) with fewer positive recordings is not drawn.
        balance: how many times the rarest positive answer any answer of a verify or choose question may be drawn; None
            draws as ECG-QA's training set does, each answer up to its cell's size.
    """

    def __init__(
        self, *, templates: Sequence[int] | None = None, min_positives: int = 2, balance: float | None = 1.0
    ) -> None:
        chosen = set(templates) if templates is not None else None
        self.asked = tuple(asked for asked in all_asked() if chosen is None or asked.template.id in chosen)
        if chosen is not None and (unknown := chosen - {asked.template.id for asked in self.asked}):
            raise UsageError(f"unknown templates {sorted(unknown)}", where="templates", remedy="They are 1 to 42.")
        if min_positives < 1:
            raise UsageError("min_positives is below 1", where="min_positives", remedy="Take 1 or more.")
        if balance is not None and balance < 1:
            raise UsageError("balance is below 1", where="balance", remedy="Take 1 or more, or None.")
        self.min_positives, self.balance = min_positives, balance

    def all_questions(self, entry: Entry) -> list[Question]:
        """Every question that the entry's labels answer, in template wording, ordered by template and attribute.

        All pairs of the choose templates are among them: about 1,500 for an entry with statements.
        """
        findings = Findings([entry])
        found = ((asked, cell) for asked in self.asked for cell in cells(asked, findings) if len(cell.rows))
        return [_question(asked, asked.text, cell.answer, entry, number) for number, (asked, cell) in enumerate(found)]

    def draw(self, entries: Sequence[Entry], *, per_cell: int, seed: int, paraphrase: bool = False) -> list[Question]:
        """Draws questions by template, attribute and answer, without replacement within a cell.

        Args:
            per_cell: the most recordings for one answer to one verify question (query: half, choose: a quarter).
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
            used = np.zeros(len(findings.labels), dtype=bool)
            for index in random.permutation(len(group)) if choose else range(len(group)):
                asked = group[index]
                for cell in self._draw_cells(asked, findings, per_cell, random, used if choose else None):
                    used[cell.rows] = True
                    for row in cell.rows:
                        yield asked, cell.answer, int(row)

    def _draw_cells(
        self,
        asked: Asked,
        findings: Findings,
        per_cell: int,
        random: np.random.Generator,
        used: npt.NDArray[np.bool_] | None,
    ) -> list[Cell]:
        form = asked.template.form
        filled = [cell for cell in cells(asked, findings) if len(cell.rows)]
        if form == "query":
            most = max(1, per_cell // 2)
            kept = [cell for cell in filled if cell.answer == (NONE,) or len(cell.rows) >= self.min_positives]
            return [Cell(cell.answer, _take(cell.rows, most, random)) for cell in kept]
        negative = NONE if form == "choose" else NO
        positives = [len(cell.rows) for cell in filled if cell.answer != (negative,)]
        if sum(positives) < self.min_positives:
            return []
        if used is not None:
            filled = [Cell(cell.answer, cell.rows[~used[cell.rows]]) for cell in filled]
            positives = [len(cell.rows) for cell in filled if cell.answer != (negative,) and len(cell.rows)]
            if not positives:
                return []
        most = max(1, per_cell // 4) if form == "choose" else per_cell
        if self.balance is not None:
            most = min(most, max(1, int(self.balance * min(positives))))
        result = []
        for cell in filled:
            share = most
            if used is not None and cell.answer == (NONE,):
                share = int(most / 2 + random.random())
            result.append(Cell(cell.answer, self._take_cell(asked, cell, findings, share, random)))
        return result

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
