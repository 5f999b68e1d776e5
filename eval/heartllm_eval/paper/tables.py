"""Tables 1-3: a part a suite, each with the scores of every row and control, and the main row's paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heartllm_eval.binomial import EXACT_BELOW, RARE_BELOW
from heartllm_eval.paper.evidence import Block, Cell, Gap, Runs, correct, measure
from heartllm_eval.paper.plan import Plan, Row, Size, TablePlan
from heartllm_eval.paper.published import Published
from heartllm_eval.rendering import Table, csv_text, latex_document
from heartllm_eval.scoring import Options
from heartllm_eval.tables import p_text

CSV_COLUMNS = (
    "table", "suite", "row", "label", "column", "what", "value", "low", "high", "interval", "n", "patients", "seeds",
    "seed_values", "p", "p_holm", "test", "agreeing_pairs", "pairs", "parameters", "training_tokens", "hours", "device",
    "published", "published_source", "published_table", "published_date", "signature",
)  # fmt: skip
NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Made:
    """A table of the paper, made from frozen runs.

    Attributes:
        blocks: a part a suite, as far as anything was run.
        tables: to be rendered.
        rows: of the CSV.
        not_run: suites without any run.
    """

    plan: TablePlan
    blocks: tuple[Block, ...]
    tables: tuple[Table, ...]
    rows: tuple[Mapping[str, Any], ...]
    not_run: tuple[str, ...]

    def markdown(self) -> str:
        """The whole table as Markdown."""
        parts = [f"# {self.plan.title}", *(table.markdown() for table in self.tables)]
        if self.not_run:
            parts.append(f"Not run yet: {', '.join(self.not_run)}.")
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """Every part as a LaTeX table."""
        return latex_document([(self.plan.name, table) for table in self.tables])

    def csv(self) -> str:
        """Every number, one a row."""
        return csv_text(CSV_COLUMNS, self.rows)


def make(
    plan: Plan,
    table: TablePlan,
    runs: Runs,
    published: Published,
    *,
    options: Options | None = None,
    complete: bool = False,
) -> Made:
    """Makes a table.

    Args:
        complete: refuse rows that were not run instead of saying so.

    Raises:
        UsageError: for runs that may not stand side by side, see `heartllm_eval.paper.evidence.check_alike`.
    """
    rows = plan.of_table(table.name)
    found: dict[str, Block | None] = {}
    for suite in table.suites:
        asked = [row for row in rows if suite in suites_of(plan, row)]
        block = measure(plan, runs, asked, suite, table.columns, options=options, complete=complete) if asked else None
        found[suite] = block
    blocks = correct([block for block in found.values() if block is not None])
    budgets = {(row.name, suite): _budget(plan, runs, row, suite) for row in rows for suite in table.suites}
    tables: list[Table] = []
    lines: list[Mapping[str, Any]] = []
    for block in blocks:
        tables.append(_scores(plan, table, block, budgets, published))
        if block.gaps:
            tables.append(_gaps(plan, table, block))
        lines += _csv(table, block, budgets, published)
    absent = tuple(suite for suite, block in found.items() if block is None)
    return Made(table, tuple(blocks), tuple(tables), tuple(lines), absent)


def suites_of(plan: Plan, row: Row, size: Size | None = None) -> list[str]:
    """The suites that a row is asked at a size."""
    regimes = [(size or plan.size()).regime(name) for name in row.regimes]
    return [suite for regime in regimes if regime is not None for suite in regime.suites]


def _budget(plan: Plan, runs: Runs, row: Row, suite: str) -> Mapping[str, Any]:
    """What a row's training cost: seed 0's numbers; of the hours the mean."""
    size = plan.size()
    regime = next(
        (name for name in row.regimes if (part := size.regime(name)) is not None and suite in part.suites), ""
    )
    known = [facts for seed in range(row.seeds) if (facts := runs.training(row.name, seed, regime))]
    if not known:
        return {}
    hours = [float(facts["hours"]) for facts in known if facts.get("hours") is not None]
    return {**known[0], "hours": sum(hours) / len(hours) if hours else None}


def cell_text(cell: Cell | None) -> str:
    """ "62.1 [58.0, 66.2]"; a dagger behind an exact interval, a dash where nothing was scored."""
    if cell is None or cell.value is None:
        return "–"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.1f}"
    mark = "" if cell.interval in ("bootstrap", "none") else "†"
    return f"{cell.value:.1f} [{cell.low:.1f}, {cell.high:.1f}]{mark}"


def gap_text(gap: Gap | None) -> str:
    """ "+4.2 [+1.0, +7.4]*"; the star says: significant."""
    if gap is None or gap.value is None:
        return "–"
    between = "" if gap.low is None or gap.high is None else f" [{gap.low:+.1f}, {gap.high:+.1f}]"
    return f"{gap.value:+.1f}{between}{'*' if gap.significant else ''}"


def _title(table: TablePlan, block: Block) -> str:
    synthetic = " (synthetic)" if block.about.get("synthetic") and "synthetic" not in str(block.about["title"]) else ""
    return f"{block.about['title']}{synthetic}"


def _scores(
    plan: Plan,
    table: TablePlan,
    block: Block,
    budgets: Mapping[tuple[str, str], Mapping[str, Any]],
    published: Published,
) -> Table:
    names = [column.name for column in table.columns]
    planned = {row.name: row for row in plan.of_table(table.name)}
    rows, sources = [], []
    for group in block.groups:
        budget = budgets.get((group.name, block.suite), {})
        theirs = published.of(group.name, block.suite)
        sources += theirs
        row = planned.get(group.name)
        planned_seeds = plan.seeds(row, block.suite) if row else 0
        seeds = f"{len(group.seeds)}" + (f" of {planned_seeds}" if planned_seeds > len(group.seeds) else "")
        rows.append(
            (
                group.label if row else f"  {group.label}",
                *(cell_text(block.cells.get((group.name, name))) for name in names),
                seeds,
                _count(budget.get("parameters")),
                _count(budget.get("training_tokens")),
                f"{budget['hours']:.1f}" if budget.get("hours") is not None else "–",
                "; ".join(f"{score.column} {score.value:g}" for score in theirs),
            )
        )
    columns = ("system", *names, "seeds", "parameters", "training tokens", "hours", "published")
    notes = [*_notes(table, block), *_budget_notes(plan, table, block, budgets)]
    notes += [
        f"Published, {score.row}, {score.column}: {score.source}, {score.table}, copied {score.date} by {score.by}; "
        f"protocol: {score.protocol}."
        for score in sources
    ]
    if block.missing:
        notes.insert(0, f"{NOT_RUN.capitalize()}: {', '.join(block.missing)}.")
    return Table(f"{_title(table, block)}, %", columns, tuple(rows), (*notes, *_signatures(block)))


def _notes(table: TablePlan, block: Block) -> list[str]:
    first = block.groups[0]
    numbers = {c.name: block.cells[first.name, c.name].n for c in table.columns if (first.name, c.name) in block.cells}
    counts = ", ".join(f"{name} {n:,}" for name, n in numbers.items())
    if len(set(numbers.values())) == 1:
        counts = f"{next(iter(numbers.values())):,}"
    notes = [
        f"n: {counts}; {block.about['patients']:,} patients. In brackets: 95 % interval, percentile bootstrap by "
        f"patient ({block.resamples:,} resamples), of the mean over the trainings shown: of other patients, not of "
        "other trainings."
    ]
    if block.about.get("derived"):
        notes.append("The questions are derived from the labels in ECG-QA's form; they are not ECG-QA's own files.")
    spread = [
        f"{group.label} {min(cell.values.values()):.1f} to {max(cell.values.values()):.1f} ({name})"
        for group in block.groups
        for name in [column.name for column in table.columns][:1]
        if len(group.seeds) > 1 and (cell := block.cells.get((group.name, name))) is not None and len(cell.values) > 1
    ]
    if spread:
        notes.append(f"Over the trainings: {'; '.join(spread)}.")
    if any(cell.interval not in ("bootstrap", "none") for cell in block.cells.values()):
        notes.append(
            f"† exact: Clopper-Pearson on the effective number of answers, since fewer than {EXACT_BELOW} patients "
            f"were asked about or fewer than {RARE_BELOW} gave the rarer kind of answer."
        )
    return notes


def _budget_notes(
    plan: Plan, table: TablePlan, block: Block, budgets: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[str]:
    """Whether the rows cost the same; what is not known is said."""
    rows = [group for group in block.groups if group.name in {row.name for row in plan.rows}]
    known = {group.label: budgets.get((group.name, block.suite), {}) for group in rows}
    notes = []
    for name, spoken in (("steps", "optimiser steps"), ("training_tokens", "training tokens"), ("hours", "hours")):
        values = {label: facts[name] for label, facts in known.items() if facts.get(name) is not None}
        if len(values) > 1:
            least, most = min(values, key=lambda k: values[k]), max(values, key=lambda k: values[k])
            if values[most] > 1.05 * values[least]:
                ends = f"{least} {_amount(values[least])}, {most} {_amount(values[most])}"
                notes.append(f"Budgets are not equal in {spoken}: {ends}.")
            else:
                notes.append(f"Budgets are equal in {spoken} to 5 %.")
    unknown = [label for label, facts in known.items() if facts.get("hours") is None]
    if unknown:
        notes.append(f"What training took is not recorded of: {', '.join(unknown)}.")
    return notes


def _gaps(plan: Plan, table: TablePlan, block: Block) -> Table:
    main = block.groups[0]
    names = [column.name for column in table.columns]
    rows = []
    for group in block.groups[1:]:
        gaps = [block.gaps.get((group.name, name)) for name in names]
        worst = [gap.p_holm for gap in gaps if gap is not None and gap.p_holm is not None]
        rows.append((group.label, *map(gap_text, gaps), p_text(min(worst)) if worst else "–"))
    notes = (
        f"{main.label} less the row, in points, on the same questions, with the paired 95 % interval by patient. "
        "*: p < 0.05 after Holm's correction over all differences of this table, the interval off 0, and the same sign "
        "in every pair of trainings; nothing else is claimed.",
        "p: paired bootstrap by patient; for right-or-wrong answers of one training against one, the larger of it and "
        "McNemar's exact test.",
    )
    return Table(
        f"{_title(table, block)}: {main.label} less ...", ("system", *names, "least p (Holm)"), tuple(rows), notes
    )


def _signatures(block: Block) -> tuple[str, ...]:
    return tuple(f"`{sign}`" for sign in block.signatures.values())


def _csv(
    table: TablePlan, block: Block, budgets: Mapping[tuple[str, str], Mapping[str, Any]], published: Published
) -> list[Mapping[str, Any]]:
    lines: list[Mapping[str, Any]] = []
    for group in block.groups:
        budget = budgets.get((group.name, block.suite), {})
        theirs = {score.column: score for score in published.of(group.name, block.suite)}
        for column in table.columns:
            cell, gap = block.cells.get((group.name, column.name)), block.gaps.get((group.name, column.name))
            shared = {
                "table": table.name, "suite": block.suite, "row": group.name, "label": group.label,
                "column": column.name, "seeds": len(group.seeds), "signature": _signature(block, column.metric),
            }  # fmt: skip
            if cell is not None:
                score = theirs.get(column.name)
                lines.append(
                    {
                        **shared,
                        "what": "score",
                        "value": cell.value,
                        "low": cell.low,
                        "high": cell.high,
                        "interval": cell.interval,
                        "n": cell.n,
                        "patients": cell.clusters,
                        "seed_values": " ".join(f"{seed}:{value:.6g}" for seed, value in cell.values.items()),
                        "parameters": budget.get("parameters"),
                        "training_tokens": budget.get("training_tokens"),
                        "hours": budget.get("hours"),
                        "device": budget.get("device"),
                        "published": score and score.value,
                        "published_source": score and score.source,
                        "published_table": score and score.table,
                        "published_date": score and score.date,
                    }
                )
            if gap is not None:
                lines.append(
                    {
                        **shared,
                        "what": "main less this",
                        "value": gap.value,
                        "low": gap.low,
                        "high": gap.high,
                        "interval": "none" if gap.low is None else "bootstrap",
                        "p": gap.p,
                        "p_holm": gap.p_holm,
                        "test": gap.test,
                        "agreeing_pairs": gap.agreeing,
                        "pairs": gap.pairs,
                    }
                )
    return [{key: _rounded(value) for key, value in line.items()} for line in lines]


def _signature(block: Block, metric: str) -> str | None:
    family = metric.partition("/")[0]
    return next((s for name, s in block.signatures.items() if name.replace("-nowordnet", "") == family), None)


def _rounded(value: Any) -> Any:
    """Six significant digits: more would differ in the last place between processors."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _count(value: Any) -> str:
    return "–" if value is None else _amount(value)


def _amount(value: float) -> str:
    """ "1.4 M"; below a thousand, as it is."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
