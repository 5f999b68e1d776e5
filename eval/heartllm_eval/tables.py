"""The tables of a run. All numbers come from the run record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heartllm_eval.binomial import EXACT_BELOW, RARE_BELOW
from heartllm_eval.rendering import Table, csv_text, latex_document, markdown_code, markdown_text
from heartllm_eval.schema import Difference, Figure, RunRecord, dumps
from heartllm_eval.statistics import MIN_CLUSTERS

__all__ = ["Table", "build", "cell", "csv_rows", "markdown", "render"]

TYPE_ORDER = ("single-verify", "single-choose", "single-query")
EXACT = "†"  # behind an interval that is exact
EXACT_NOTE = (
    f"{EXACT} exact: Clopper-Pearson on the effective number of answers (Korn and Graubard 1998), since fewer than "
    f"{EXACT_BELOW} {{units}} were asked about or fewer than {RARE_BELOW} gave the rarer kind of answer."
)
_HASH = re.compile("[0-9a-f]{64}")  # as much of one is shown as tells models apart
NO_BOOTSTRAP = "a figure that resampling does not do justice to (a count, a mean over rare labels)"
CSV_COLUMNS = (
    "run",
    "row",
    "task",
    "title",
    "synthetic",
    "derived",
    "limit",
    "system",
    "mode",
    "control",
    "metric",
    "slice",
    "value",
    "low",
    "high",
    "interval",
    "confidence",
    "n",
    "clusters",
    "system_value",
    "control_value",
    "only_system",
    "only_control",
    "test",
    "p_mcnemar",
    "p_bootstrap",
    "p",
    "p_holm",
    "signature",
)


STRICT = "strict"  # our mode, which needs no label; see `modes_of`


class _Lookup:
    """Figures of one task by system, metric and slice."""

    def __init__(self, record: RunRecord, task: str) -> None:
        self.figures = [figure for figure in record.figures if figure.task == task]
        self._by = {(figure.system, figure.metric, figure.slice): figure for figure in self.figures}
        self.systems = tuple(dict.fromkeys(figure.system for figure in self.figures))
        self.metrics = tuple(dict.fromkeys(figure.metric for figure in self.figures))
        modes = modes_of(record.systems)
        self.labels = tuple(
            f"{name} ({modes[name]})" if modes.get(name, "") not in ("", STRICT) else name for name in self.systems
        )

    def get(self, system: str, metric: str, label: str) -> Figure | None:
        return self._by.get((system, metric, label))

    def values(self, name: str) -> list[str]:
        found = dict.fromkeys(
            figure.slice.partition("=")[2] for figure in self.figures if figure.slice.startswith(f"{name}=")
        )
        return sorted(found, key=lambda value: slice_rank(f"{name}={value}"))

    def count(self, label: str, metric: str) -> str:
        figure = self.get(self.systems[0], metric, label)
        return f"{figure.n:,}" if figure else "0"


def slice_name(label: str) -> str:
    """ "question_type=single-verify" -> "verify", "sex=male" -> "sex male"."""
    name, _, value = label.partition("=")
    return short(value or name) if name in ("all", "question_type") else f"{name.replace('_', ' ')} {value}"


def slice_rank(label: str) -> tuple[int, str]:
    """Sorts "all" first, then ECG-QA's question types in its own order, then by name."""
    value = label.partition("=")[2]
    return (TYPE_ORDER.index(value) + 1, "") if value in TYPE_ORDER else (0 if label == "all" else 99, label)


def cell(figure: Figure | None) -> str:
    """ "77.2 [75.9, 78.4]", with a dagger where the interval is exact; a dash where nothing was scored."""
    if figure is None or figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.1f}"
    exact = EXACT if figure.interval not in ("bootstrap", "none") else ""
    return f"{figure.value:.1f} [{figure.low:.1f}, {figure.high:.1f}]{exact}"


def short(value: str) -> str:
    """ "single-verify" -> "verify"."""
    return value.removeprefix("single-")


def build(record: RunRecord) -> list[Table]:
    """All tables of a run."""
    found: list[Table] = []
    for task, about in record.tasks.items():
        lookup = _Lookup(record, task)
        if not lookup.systems:
            continue
        make = _qa_tables if about["kind"] == "qa" else _report_tables
        found += make(lookup, task, about, record)
    return found


def interval_notes(
    figures: Iterable[Figure], about: Mapping[str, Any], settings: Mapping[str, Any], clusters: int
) -> tuple[str, ...]:
    """How the intervals of a table's cells were made, and why some are missing."""
    shown = [figure for figure in figures if figure.value is not None]
    confidence = next((figure.confidence for figure in shown), 0.95)
    unit = str(about.get("cluster", "patient"))
    count = f"{clusters:,} {unit}{'' if clusters == 1 else 's'}"
    limit = f" A seeded subset (--limit {about['limit']})." if about.get("limit") else ""
    notes = [
        f"In brackets: {confidence:.0%} interval, percentile bootstrap by {unit} "
        f"({count}, {settings.get('resamples', 0):,} resamples).{limit}"
    ]
    if any(figure.interval not in ("bootstrap", "none") for figure in shown):
        notes.append(EXACT_NOTE.format(units=f"{unit}s"))
    lacking = [figure for figure in shown if figure.low is None]
    if any(figure.clusters < MIN_CLUSTERS for figure in lacking):
        notes.append(f"No interval: too few {unit}s.")
    if any(figure.clusters >= MIN_CLUSTERS for figure in lacking):
        notes.append(f"No interval: {NO_BOOTSTRAP}.")
    return tuple(notes)


def signature_notes(signatures: Mapping[str, str], metrics: Iterable[str]) -> tuple[str, ...]:
    """One note for each metric: how it computes."""
    names = dict.fromkeys(name.partition("/")[0] for name in metrics)
    return tuple(f"`{signatures.get(name, name)}`" for name in names)


def _clusters(lookup: _Lookup, metric: str) -> int:
    figure = lookup.get(lookup.systems[0], metric, "all")
    return figure.clusters if figure else 0


def _cells(
    lookup: _Lookup, record: RunRecord, about: Mapping[str, Any], keys: Sequence[Sequence[tuple[str, str, str]]]
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Rows of cells for (system, metric, slice) keys, and the notes that these cells need."""
    found = [[lookup.get(*key) for key in row] for row in keys]
    metrics = dict.fromkeys(metric for row in keys for _, metric, _ in row)
    clusters = max((_clusters(lookup, metric) for metric in metrics), default=0)
    notes = interval_notes(
        (figure for row in found for figure in row if figure is not None), about, record.settings, clusters
    )
    return [[cell(figure) for figure in row] for row in found], notes + signature_notes(record.signatures, metrics)


def _qa_tables(lookup: _Lookup, task: str, about: Mapping[str, Any], record: RunRecord) -> list[Table]:
    primary = str(about["primary"])
    types = lookup.values("question_type")
    labels = [*(f"question_type={value}" for value in types), "all"]
    title = str(about["title"])
    first = next((metric for metric in lookup.metrics if metric.partition("/")[0] == primary), primary)
    headers = [f"{short(label.partition('=')[2] or 'all')} (n={lookup.count(label, first)})" for label in labels]
    keys = [[(system, first, label) for label in labels] for system in lookup.systems]
    cells, notes = _cells(lookup, record, about, keys)
    rows = [(label, *row) for label, row in zip(lookup.labels, cells, strict=True)]
    tables = [Table(f"{title}: {first}, %", ("system", *headers), tuple(rows), notes)]
    tables += _difference_table(record.differences, task, title, primary)
    for name in about["slices"]:
        if name != "question_type" and len(lookup.values(name)) > 1:
            tables.append(_slice_table(lookup, title, first, name, record, about))
    others = [metric for metric in lookup.metrics if metric != first]
    if others:
        tables.append(_metrics_table(lookup, f"{title}: the same answers under other rules, %", others, record, about))
    return tables


def _slice_table(
    lookup: _Lookup, title: str, metric: str, name: str, record: RunRecord, about: Mapping[str, Any]
) -> Table:
    values = lookup.values(name)
    cells, notes = _cells(
        lookup, record, about, [[(system, metric, f"{name}={value}") for system in lookup.systems] for value in values]
    )
    rows = []
    for value, row in zip(values, cells, strict=True):
        figure = lookup.get(lookup.systems[0], metric, f"{name}={value}")
        clusters = f"{figure.clusters:,}" if figure else "0"
        rows.append((value, lookup.count(f"{name}={value}", metric), clusters, *row))
    spoken = name.replace("_", " ")
    columns = (spoken, "n", f"{about.get('cluster', 'patient')}s", *lookup.labels)
    return Table(f"{title}: {metric} by {spoken}, %", columns, tuple(rows), notes)


def _metrics_table(
    lookup: _Lookup, title: str, metrics: Sequence[str], record: RunRecord, about: Mapping[str, Any]
) -> Table:
    cells, notes = _cells(
        lookup, record, about, [[(system, metric, "all") for system in lookup.systems] for metric in metrics]
    )
    rows = [(metric, lookup.count("all", metric), *row) for metric, row in zip(metrics, cells, strict=True)]
    return Table(title, ("metric", "n", *lookup.labels), tuple(rows), notes)


def _report_tables(lookup: _Lookup, task: str, about: Mapping[str, Any], record: RunRecord) -> list[Table]:
    title, tables = str(about["title"]), []
    profiles: dict[str, list[str]] = {}
    for metric in lookup.metrics:
        profiles.setdefault(metric.partition("/")[0].partition(".")[2], []).append(metric)
    for profile, metrics in profiles.items():
        heading = f"{title}: {profile} profile" if profile else title
        tables.append(_metrics_table(lookup, heading, metrics, record, about))
    tables += _difference_table(record.differences, task, title, str(about["primary"]))
    primary = next(
        (metric for metric in reversed(lookup.metrics) if metric.partition("/")[0] == about["primary"]), None
    )
    for name in about["slices"]:
        if primary and len(lookup.values(name)) > 1:
            tables.append(_slice_table(lookup, title, primary, name, record, about))
    return tables


def p_text(value: float | None) -> str:
    """ "0.0123"; a dash where there is none."""
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def p_notes(differences: Iterable[Difference], unit: str = "patient") -> list[str]:
    """What the p of these differences are."""
    tests = {part.test for part in differences}
    notes = []
    if "mcnemar+bootstrap" in tests:
        few = f"; below {MIN_CLUSTERS} {unit}s the sign test by {unit} instead" if "mcnemar+sign" in tests else ""
        notes.append(
            f"p: the larger of McNemar's exact test (which takes the questions of one {unit} as independent) and the "
            f"paired bootstrap by {unit}, two-sided{few}."
        )
    elif "mcnemar+sign" in tests:
        notes.append(
            f"p: the larger of McNemar's exact test (which takes the questions of one {unit} as independent) and the "
            f"sign test by {unit}, two-sided."
        )
    if "bootstrap" in tests:
        notes.append(f"p: paired bootstrap by {unit}, two-sided.")
    return notes


def difference_texts(part: Difference) -> tuple[str, str]:
    """ "+5.0" and "[+3.3, +6.7]"; dashes where there is nothing to say."""
    value = "–" if part.value is None else f"{part.value:+.1f}"
    between = "–" if part.low is None or part.high is None else f"[{part.low:+.1f}, {part.high:+.1f}]"
    return value, between


def _difference_table(differences: Sequence[Difference], task: str, title: str, primary: str) -> list[Table]:
    chosen = [part for part in differences if part.task == task]
    if not chosen:
        return []
    rows = []
    controls = list(dict.fromkeys(part.control for part in chosen))
    flips = any(part.only_model is not None for part in chosen)
    for part in sorted(chosen, key=lambda part: (controls.index(part.control), slice_rank(part.slice))):
        figure = f", {part.metric.partition('/')[2]}" if "/" in part.metric else ""
        what = f"{part.system} − {part.control}" if part.slice == "all" else f"  {slice_name(part.slice)}"
        only = ["–" if part.only_model is None else f"{part.only_model:,} / {part.only_control:,}"] if flips else []
        tests = (p_text(part.p), p_text(part.p_holm))
        rows.append((what + figure, f"{part.n:,}", *difference_texts(part), *only, *tests))
    notes = (
        *p_notes(chosen),
        "The interval is paired and by patient. Holm's correction runs over all differences of this run.",
    )
    columns = ("systems", "n", "difference", "interval", *(["right only in one"] if flips else []), "p", "p (Holm)")
    return [Table(f"{title}: differences in {primary}, points", columns, tuple(rows), notes)]


def csv_rows(
    run: str,
    figures: Sequence[Figure],
    differences: Iterable[Difference],
    tasks: Mapping[str, Mapping[str, Any]],
    signatures: Mapping[str, str],
    modes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Every figure and difference of a run, one a row (`CSV_COLUMNS`), with what its task is and its signature."""

    def shared(part: Figure | Difference) -> dict[str, Any]:
        about = tasks.get(part.task, {})
        same = ("task", "system", "metric", "slice", "value", "low", "high", "n", "clusters")
        return {
            "run": run,
            **{name: about.get(name) for name in ("title", "synthetic", "derived", "limit")},
            **{name: getattr(part, name) for name in same},
            "mode": (modes or {}).get(part.system),
            "signature": signatures.get(part.metric.partition("/")[0]),
        }

    confidence = next((figure.confidence for figure in figures), None)
    rows = [
        {"row": "figure", **shared(figure), "interval": figure.interval, "confidence": figure.confidence}
        for figure in figures
    ]
    same = ("control", "control_value", "only_control", "test", "p_mcnemar", "p_bootstrap", "p", "p_holm")
    rows += [
        {
            "row": "difference",
            **shared(part),
            **{name: getattr(part, name) for name in same},
            "interval": "none" if part.low is None else "bootstrap",
            "confidence": confidence,
            "system_value": part.model_value,
            "only_system": part.only_model,
        }
        for part in differences
    ]
    return rows


def render(records: Mapping[str, RunRecord], format: str) -> str:
    """The results of runs, by name, as "markdown", "csv", "json" or "latex"; "text" is for `Table.show`."""
    if format == "json":
        found = list(records.values())
        return dumps(found[0] if len(found) == 1 else found, indent=1) + "\n"
    if format == "csv":
        rows = (
            csv_rows(
                name, record.figures, record.differences, record.tasks, record.signatures, modes_of(record.systems)
            )
            for name, record in records.items()
        )
        return csv_text(CSV_COLUMNS, (row for part in rows for row in part))
    if format == "latex":
        return latex_document([(name, table) for name, record in records.items() for table in build(record)])
    parts = []
    for name, record in records.items():
        parts += [f"## {markdown_text(name)}\n"] if len(records) > 1 else []
        parts += [table.markdown() + "\n" for table in build(record)]
    return "\n".join(parts)


def markdown(record: RunRecord, *, title: str) -> str:
    """results.md."""
    about = [
        f"# {markdown_text(title)}",
        "",
        markdown_text(
            f"Status: {record.status}. Finished: {record.finished or '–'}. "
            f"Code: {record.source.get('commit') or 'installed package'}"
            f"{' with changes' if record.source.get('dirty') else ''}, "
            f"heartllm {record.versions.get('heartllm', '–')}."
        ),
        "",
    ]
    systems = [
        f"- {markdown_code(name)}: {markdown_text(system_line(entry))}" for name, entry in record.systems.items()
    ]
    warnings = [f"- {markdown_text(note)}" for note in record.settings.get("notes", [])]
    parts = [*about, *systems, *(["", "Warnings:", "", *warnings] if warnings else []), ""]
    parts += [table.markdown() + "\n" for table in build(record)]
    return "\n".join(parts)


def modes_of(systems: Mapping[str, Any]) -> dict[str, str]:
    """System -> "compat" (the authors' way) or "strict" (ours); "" for models that know no such difference."""
    found = {}
    for name, entry in systems.items():
        ours = STRICT if dict(entry).get("kind") == "heartllm" else ""
        found[name] = str(dict(dict(entry).get("model") or {}).get("mode", ours))
    return found


def system_line(entry: Mapping[str, Any]) -> str:
    """ "heartllm (checkpoint=DIR, fingerprint=...)"."""
    model = {
        key: value[:16] if isinstance(value, str) and _HASH.fullmatch(value) else value
        for key, value in dict(entry.get("model") or {}).items()
    }
    model.pop("trained_on", None)  # told in words instead
    arguments = ", ".join(f"{key}={value}" for key, value in {**dict(entry.get("model_args") or {}), **model}.items())
    told = "".join(f"; {task}: {at['status']}, {at['why']}" for task, at in dict(entry.get("training") or {}).items())
    return (f"{entry.get('kind')} ({arguments})" if arguments else str(entry.get("kind"))) + told
