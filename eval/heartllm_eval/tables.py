"""The tables of a run, for the screen and as Markdown. All numbers come from the run record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heartllm_eval.schema import Difference, Figure, RunRecord

if TYPE_CHECKING:
    from rich.console import Console

TYPE_ORDER = ("single-verify", "single-choose", "single-query")


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: above it.
        columns: headers; the first column holds row names.
        rows: cells.
        notes: below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """GitHub Markdown. Vertical bars in cells are escaped."""

        def line(cells: Iterable[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = "|" + "|".join("---" if index == 0 else "---:" for index in range(len(self.columns))) + "|"
        body = [line(self.columns), rule, *(line(row) for row in self.rows)]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"### {self.title}", "", *body, *notes])

    def show(self, console: Console) -> None:
        """Prints it."""
        from rich.table import Table as Rich
        from rich.text import Text

        console.print(Text(self.title, style="bold"), soft_wrap=True)
        shown = Rich()
        for index, column in enumerate(self.columns):
            shown.add_column(Text(column), justify="left" if index == 0 else "right", no_wrap=True)
        for row in self.rows:
            shown.add_row(*(Text(cell) for cell in row))
        console.print(shown)
        for note in self.notes:
            console.print(Text(note, style="dim"), soft_wrap=True)
        console.print()


class _Lookup:
    """Figures of one task by system, metric and slice."""

    def __init__(self, figures: Sequence[Figure], task: str) -> None:
        self.figures = [figure for figure in figures if figure.task == task]
        self._by = {(figure.system, figure.metric, figure.slice): figure for figure in self.figures}
        self.systems = tuple(dict.fromkeys(figure.system for figure in self.figures))
        self.metrics = tuple(dict.fromkeys(figure.metric for figure in self.figures))

    def get(self, system: str, metric: str, label: str) -> Figure | None:
        return self._by.get((system, metric, label))

    def values(self, name: str) -> list[str]:
        found = dict.fromkeys(
            figure.slice.partition("=")[2] for figure in self.figures if figure.slice.startswith(f"{name}=")
        )
        order = {value: rank for rank, value in enumerate(TYPE_ORDER)}
        return sorted(found, key=lambda value: (order.get(value, len(order)), value))

    def count(self, label: str, metric: str) -> str:
        figure = self.get(self.systems[0], metric, label)
        return f"{figure.n:,}" if figure else "0"


def cell(figure: Figure | None) -> str:
    """ "77.2 [75.9, 78.4]"; a dash where nothing was scored."""
    if figure is None or figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.1f}"
    return f"{figure.value:.1f} [{figure.low:.1f}, {figure.high:.1f}]"


def short(value: str) -> str:
    """ "single-verify" -> "verify"."""
    return value.removeprefix("single-")


def build(record: RunRecord) -> list[Table]:
    """All tables of a run."""
    found: list[Table] = []
    for task, about in record.tasks.items():
        lookup = _Lookup(record.figures, task)
        if not lookup.systems:
            continue
        make = _qa_tables if about["kind"] == "qa" else _report_tables
        found += make(lookup, task, about, record)
    return found


def _notes(record: RunRecord, about: Mapping[str, Any], metrics: Iterable[str], clusters: int) -> tuple[str, ...]:
    names = dict.fromkeys(name.partition("/")[0] for name in metrics)
    confidence = next((figure.confidence for figure in record.figures), 0.95)
    unit = about.get("cluster", "patient")
    shown = f"{clusters:,} {unit}{'' if clusters == 1 else 's'}"
    limit = f" A seeded subset (--limit {about['limit']})." if about.get("limit") else ""
    intervals = (
        f"In brackets: {confidence:.0%} interval, percentile bootstrap by {unit} "
        f"({shown}, {record.settings.get('resamples', 0):,} resamples).{limit}"
    )
    return (intervals, *(f"`{record.signatures.get(name, name)}`" for name in names))


def _clusters(lookup: _Lookup, metric: str) -> int:
    figure = lookup.get(lookup.systems[0], metric, "all")
    return figure.clusters if figure else 0


def _qa_tables(lookup: _Lookup, task: str, about: Mapping[str, Any], record: RunRecord) -> list[Table]:
    primary = str(about["primary"])
    types = lookup.values("question_type")
    labels = [*(f"question_type={value}" for value in types), "all"]
    title = str(about["title"])
    notes = _notes(record, about, [primary], _clusters(lookup, primary))
    headers = [f"{short(label.partition('=')[2] or 'all')} (n={lookup.count(label, primary)})" for label in labels]
    rows = [(system, *(cell(lookup.get(system, primary, label)) for label in labels)) for system in lookup.systems]
    tables = [Table(f"{title}: {primary}, %", ("system", *headers), tuple(rows), notes)]
    tables += _difference_table(record.differences, task, title, primary)
    for name in about["slices"]:
        if name == "question_type" or len(lookup.values(name)) < 2:
            continue
        tables.append(_slice_table(lookup, title, primary, name, notes))
    others = [metric for metric in lookup.metrics if metric != primary]
    if others:
        rows = [(system, *(cell(lookup.get(system, metric, "all")) for metric in others)) for system in lookup.systems]
        headers = [f"{metric} (n={lookup.count('all', metric)})" for metric in others]
        other_notes = _notes(record, about, others, _clusters(lookup, primary))
        tables.append(
            Table(f"{title}: the same answers under other rules, %", ("system", *headers), tuple(rows), other_notes)
        )
    return tables


def _slice_table(lookup: _Lookup, title: str, metric: str, name: str, notes: tuple[str, ...]) -> Table:
    values = lookup.values(name)
    rows = [
        (
            value,
            lookup.count(f"{name}={value}", metric),
            *(cell(lookup.get(system, metric, f"{name}={value}")) for system in lookup.systems),
        )
        for value in values
    ]
    return Table(
        f"{title}: {metric} by {name.replace('_', ' ')}, %",
        (name.replace("_", " "), "n", *lookup.systems),
        tuple(rows),
        notes,
    )


def _report_tables(lookup: _Lookup, task: str, about: Mapping[str, Any], record: RunRecord) -> list[Table]:
    title, tables = str(about["title"]), []
    profiles = dict.fromkeys(metric.partition("/")[0].rpartition(".")[2] for metric in lookup.metrics)
    for profile in profiles:
        metrics = [metric for metric in lookup.metrics if metric.partition("/")[0].rpartition(".")[2] == profile]
        headers = [metric.rpartition("/")[2].removesuffix(f".{profile}") for metric in metrics]
        rows = [(system, *(cell(lookup.get(system, metric, "all")) for metric in metrics)) for system in lookup.systems]
        notes = _notes(record, about, metrics, _clusters(lookup, metrics[0]))
        count = lookup.count("all", metrics[0])
        tables.append(Table(f"{title}: {profile} profile (n={count})", ("system", *headers), tuple(rows), notes))
    tables += _difference_table(record.differences, task, title, str(about["primary"]))
    primary = next(
        (metric for metric in reversed(lookup.metrics) if metric.partition("/")[0] == about["primary"]), None
    )
    for name in about["slices"]:
        if primary and len(lookup.values(name)) > 1:
            tables.append(
                _slice_table(lookup, title, primary, name, _notes(record, about, [primary], _clusters(lookup, primary)))
            )
    return tables


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _difference_table(differences: Sequence[Difference], task: str, title: str, primary: str) -> list[Table]:
    chosen = [part for part in differences if part.task == task]
    if not chosen:
        return []
    rows, tests = [], set()
    controls = list(dict.fromkeys(part.control for part in chosen))
    for part in sorted(chosen, key=lambda part: controls.index(part.control)):
        between = "–" if part.low is None or part.high is None else f"[{part.low:+.1f}, {part.high:+.1f}]"
        value = "–" if part.value is None else f"{part.value:+.1f}"
        what = short(part.slice.partition("=")[2] or part.slice) + (
            f" {part.metric.partition('/')[2]}" if "/" in part.metric else ""
        )
        flips = f"{part.only_model} / {part.only_control}" if part.only_model is not None else "–"
        rows.append(
            (f"{part.system} − {part.control}", what, f"{part.n:,}", value, between, flips, _p(part.p), _p(part.p_holm))
        )
        tests.add(part.test)
    said = {
        "mcnemar+bootstrap": "p: the larger of McNemar's exact test (which takes the questions of one patient as "
        "independent) and the paired bootstrap by patient, two-sided.",
        "mcnemar": "p: McNemar's exact test, two-sided (too few patients for a bootstrap).",
        "bootstrap": "p: paired bootstrap by patient, two-sided.",
    }
    notes = (*(said[test] for test in sorted(tests)), "Holm's correction runs over all differences of this run.")
    columns = ("systems", "on", "n", "difference", "interval", "right only in one", "p", "p (Holm)")
    return [Table(f"{title}: differences in {primary}, points", columns, tuple(rows), notes)]


def markdown(record: RunRecord, *, title: str) -> str:
    """results.md."""
    about = [
        f"# {title}",
        "",
        f"Status: {record.status}. Finished: {record.finished or '–'}. "
        f"Code: {record.source.get('commit') or 'installed package'}"
        f"{' with changes' if record.source.get('dirty') else ''}, "
        f"heartllm {record.versions.get('heartllm', '–')}.",
        "",
    ]
    systems = [f"- `{name}`: {_system_line(entry)}" for name, entry in record.systems.items()]
    warnings = [f"- {note}" for note in record.settings.get("notes", [])]
    parts = [*about, *systems, *(["", "Warnings:", "", *warnings] if warnings else []), ""]
    parts += [table.markdown() + "\n" for table in build(record)]
    return "\n".join(parts)


def _system_line(entry: Mapping[str, Any]) -> str:
    model = {
        key: str(value)[:16] if key in ("fingerprint", "codec") else value
        for key, value in dict(entry.get("model") or {}).items()
    }
    arguments = ", ".join(f"{key}={value}" for key, value in {**dict(entry.get("model_args") or {}), **model}.items())
    return f"{entry.get('kind')} ({arguments})" if arguments else str(entry.get("kind"))
