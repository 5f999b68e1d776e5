"""The tables of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heartllm.plain import plain_line
from heartllm_eval.comparison.flips import Flip, examples
from heartllm_eval.comparison.pairs import Comparison
from heartllm_eval.comparison.seeds import MIN_SEEDS, Group
from heartllm_eval.rendering import (
    Table,
    csv_text,
    latex_document,
    markdown_code,
    markdown_text,
    shorten,
    show_all,
)
from heartllm_eval.schema import Difference, dumps, to_json
from heartllm_eval.statistics import MIN_CLUSTERS
from heartllm_eval.tables import (
    CSV_COLUMNS,
    NO_BOOTSTRAP,
    csv_rows,
    difference_texts,
    modes_of,
    p_notes,
    p_text,
    signature_notes,
    slice_name,
    slice_rank,
    system_line,
)

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = 3


def pairs_of(comparison: Comparison, task: str) -> list[tuple[str, str]]:
    """The pairs of a task, in order."""
    return list(dict.fromkeys((part.system, part.control) for part in comparison.differences if part.task == task))


def build(comparison: Comparison) -> list[Table]:
    """One table for each task and pair, then those of the groups of seeds."""
    found = [
        _pair_table(comparison, task, about, pair)
        for task, about in comparison.tasks.items()
        for pair in pairs_of(comparison, task)
    ]
    return found + group_tables(comparison)


def _chosen(comparison: Comparison, task: str, pair: tuple[str, str]) -> list[Difference]:
    about = comparison.tasks[task]
    order = [about["primary"], *(name for name in about["metrics"] if name != about["primary"])]
    slices = list(about["slices"])
    figures = list(dict.fromkeys(part.metric for part in comparison.differences if part.task == task))
    return sorted(
        (part for part in comparison.differences if part.task == task and (part.system, part.control) == pair),
        key=lambda part: (
            order.index(part.metric.partition("/")[0]),
            figures.index(part.metric),
            part.slice != "all",
            slices.index(part.slice.partition("=")[0]) if part.slice != "all" else 0,
            slice_rank(part.slice),
        ),
    )


def _pair_table(comparison: Comparison, task: str, about: Mapping[str, Any], pair: tuple[str, str]) -> Table:
    chosen = _chosen(comparison, task, pair)
    flips = any(part.only_model is not None for part in chosen)
    alpha = 1 - float(comparison.settings["confidence"])
    rows = []
    for part in chosen:
        name = part.metric if part.slice == "all" else f"  {slice_name(part.slice)}"
        star = "*" if part.p_holm is not None and part.p_holm < alpha else ""
        values = ["–" if value is None else f"{value:.1f}" for value in (part.model_value, part.control_value)]
        turned = [f"{part.only_model:,}", f"{part.only_control:,}"] if part.only_model is not None else ["–", "–"]
        rows.append(
            (name, f"{part.n:,}", f"{part.clusters:,}", *values, " ".join(difference_texts(part)))
            + (tuple(turned) if flips else ())
            + (p_text(part.p), p_text(part.p_holm) + star)
        )
    unit = f"{about.get('cluster', 'patient')}s"
    turned_heads = (f"only {pair[0]} right", f"only {pair[1]} right") if flips else ()
    columns = ("metric", "n", unit, *pair, "difference", *turned_heads, "p", "p (Holm)")
    title = f"{about['title']}: {pair[0]} − {pair[1]}, points"
    return Table(title, columns, tuple(rows), _notes(comparison, about, chosen))


def _notes(comparison: Comparison, about: Mapping[str, Any], chosen: Sequence[Difference]) -> tuple[str, ...]:
    settings, unit = comparison.settings, str(about.get("cluster", "patient"))
    confidence = float(settings["confidence"])
    limit = f" A seeded subset (--limit {about['limit']})." if about.get("limit") else ""
    notes = [
        f"In brackets: {confidence:.0%} interval, paired percentile bootstrap by {unit} "
        f"({about['patients']:,} {unit}s, {settings['resamples']:,} resamples).{limit}"
    ]
    if any(part.low is None for part in chosen):
        notes.append(f"No interval: no sample differs, fewer than {MIN_CLUSTERS} {unit}s, or {NO_BOOTSTRAP}.")
    notes += p_notes(chosen, unit)
    tests_in_all = f"Holm's correction runs over all {settings['holm_tests']} tests of this comparison"
    notes.append(f"{tests_in_all}; * below {1 - confidence:.2g}.")
    if any(part.p_bootstrap is not None for part in chosen):
        notes.append(f"A bootstrap's p is at least 1 / {settings['resamples'] + 1:,}; more resamples let it go lower.")
    notes += about.get("notes", [])
    return (*notes, *signature_notes(comparison.signatures, (part.metric for part in chosen)))


def verdicts(comparison: Comparison) -> list[str]:
    """One sentence for each task and pair, on the primary metric over all samples."""
    found = []
    alpha = 1 - float(comparison.settings["confidence"])
    for task, about in comparison.tasks.items():
        for pair in pairs_of(comparison, task):
            part = next(
                (
                    part
                    for part in reversed(comparison.differences)
                    if part.task == task
                    and (part.system, part.control) == pair
                    and part.slice == "all"
                    and part.metric.partition("/")[0] == about["primary"]
                ),
                None,
            )
            if part is None or part.value is None:
                continue
            value, between = difference_texts(part)
            between = "(no interval)" if between == "–" else between
            known = part.p_holm is not None and part.p_holm < alpha
            relation = ("is above" if part.value > 0 else "is below") if known else "does not clearly differ from"
            found.append(
                f"{about['title']}: {pair[0]} {relation} {pair[1]} in {part.metric}, {value} points {between}, "
                f"p {p_text(part.p)}, after Holm over {comparison.settings['holm_tests']} tests {p_text(part.p_holm)}."
            )
    return found


def side_lines(comparison: Comparison) -> dict[str, str]:
    """Label -> where its answers come from, and which model gave them."""
    return {
        name: f"{about.get('run') or about.get('file')}, {system_line(about)}"
        for name, about in comparison.sides.items()
    }


def flip_tables(comparison: Comparison, flips: Sequence[Flip], count: int) -> list[Table]:
    """Examples of what changed, for each task and pair; how many there are in the title."""
    found = []
    for task, about in comparison.tasks.items():
        for pair in pairs_of(comparison, task):
            here = [flip for flip in flips if flip.task == task and (flip.system, flip.control) == pair]
            if not here or count < 1:
                continue
            rows = [
                (
                    _direction(flip),
                    shorten(flip.question or flip.question_type, 100),
                    *(shorten(text, 160) for text in (flip.reference, flip.system_answer, flip.control_answer)),
                )
                for flip in examples(here, count)
            ]
            columns = ("change", "question", "reference", *pair)
            title = f"{about['title']}: {flip_summary(here, about, pair)}"
            right_or_wrong = any("->" in flip.direction for flip in here)
            note = "Examples, chosen without regard to what they say." if right_or_wrong else "The largest changes."
            found.append(Table(title, columns, tuple(rows), (note,)))
    return found


def _direction(flip: Flip) -> str:
    return flip.direction.replace("->", " → ") if "->" in flip.direction else f"{flip.change:+.1f}"


def flip_summary(flips: Sequence[Flip], about: Mapping[str, Any], pair: tuple[str, str]) -> str:
    """ "587 answers turn right and 325 turn wrong from blind to model (exact_match.strict)"."""
    gained = sum(flip.change > 0 for flip in flips)
    lost = len(flips) - gained
    if any("->" in flip.direction for flip in flips):
        return f"from {pair[1]} to {pair[0]}, {gained:,} answers turn right and {lost:,} turn wrong"
    return f"from {pair[1]} to {pair[0]}, {flips[0].metric} rises on {gained:,} and falls on {lost:,} samples"


def show(comparison: Comparison, flips: Sequence[Flip], console: Console, count: int = EXAMPLES) -> None:
    """Prints the comparison: sentences, tables, examples."""
    from rich.text import Text

    lines = [f"{name}: {text}" for name, text in side_lines(comparison).items()]
    said = [*verdicts(comparison), *(f"note: {note}" for note in comparison.notes)]
    for line in (*lines, *(["", *said] if said else [])):
        console.print(Text(plain_line(line)), soft_wrap=True)
    console.print()
    show_all(build(comparison), console)
    for table in flip_tables(comparison, flips, count):
        _show_examples(table, console)


def _show_examples(table: Table, console: Console) -> None:
    """Examples are too wide for a table on a screen: a few lines each."""
    from rich.text import Text

    console.print(Text(plain_line(table.title), style="bold"), soft_wrap=True)
    for row in table.rows:
        console.print(Text(f"\n  {plain_line(row[0])}   {plain_line(row[1])}"), soft_wrap=True)
        width = max(map(len, table.columns[2:]))
        for name, text in zip(table.columns[2:], row[2:], strict=True):
            console.print(Text(f"      {name:{width}}  {plain_line(text)}"), soft_wrap=True)
    console.print(Text("\n" + " ".join(table.notes), style="dim"), soft_wrap=True)
    console.print()


def render(comparison: Comparison, flips: Sequence[Flip], format: str, count: int = EXAMPLES) -> str:
    """The comparison as "markdown", "csv", "json" or "latex" (without examples); "text" is for `show`."""
    if format == "json":
        return (
            dumps({**to_json(comparison), "examples": to_json(examples_of(comparison, flips, count))}, indent=1) + "\n"
        )
    if format == "csv":
        runs = "; ".join(f"{name}={about.get('run') or about.get('file')}" for name, about in comparison.sides.items())
        about = (comparison.figures, comparison.differences, comparison.tasks, comparison.signatures)
        rows = csv_rows(runs, *about, modes_of(comparison.sides))
        return csv_text(CSV_COLUMNS, rows)
    if format == "latex":
        return latex_document([("compare", table) for table in build(comparison)])
    tables = [*build(comparison), *flip_tables(comparison, flips, count)]
    head = [f"- {markdown_text(line)}" for line in (*verdicts(comparison), *comparison.notes)]
    names = [f"- {markdown_code(name)}: {markdown_text(text)}" for name, text in side_lines(comparison).items()]
    return "\n".join(["Compared:", "", *names, "", *head, "", *(table.markdown() + "\n" for table in tables)])


def examples_of(comparison: Comparison, flips: Sequence[Flip], count: int) -> list[Flip]:
    """The examples of every task and pair."""
    keys = dict.fromkeys((flip.task, flip.system, flip.control) for flip in flips)
    return [
        flip
        for key in keys
        for flip in examples([flip for flip in flips if (flip.task, flip.system, flip.control) == key], count)
    ]


def group_tables(comparison: Comparison) -> list[Table]:
    """For each task: every run, the mean and the range of each group, on each metric and on the primary's slices."""
    tables = []
    confidence = float(comparison.settings["confidence"])
    for task, about in comparison.tasks.items():
        chosen = [
            group
            for group in comparison.groups
            if group.task == task and (group.slice == "all" or group.metric.partition("/")[0] == about["primary"])
        ]
        if not chosen:
            continue
        metrics = list(dict.fromkeys(group.metric for group in chosen))
        chosen.sort(
            key=lambda group: (
                metrics.index(group.metric),
                group.slice.partition("=")[0] != "all",
                slice_rank(group.slice),
            )
        )
        rows = []
        for group in chosen:
            values = list(group.values.values())
            name = group.metric if group.slice == "all" else f"  {slice_name(group.slice)}"
            between = "–" if group.low is None or group.high is None else f"[{group.low:.1f}, {group.high:.1f}]"
            each = ", ".join(f"{value:.1f}" for value in values)
            spread = f"{min(values):.1f} to {max(values):.1f}"
            rows.append((name, group.group, str(len(values)), each, f"{group.mean:.1f}", spread, between))
        columns = ("metric", "group", "seeds", "each run", "mean", "range", "interval")
        notes = (*_group_notes(comparison, about, confidence), *signature_notes(comparison.signatures, metrics))
        tables.append(Table(f"{about['title']}: runs of several seeds, %", columns, tuple(rows), notes))
        tables += _between(chosen, about)
    return tables


def _group_notes(comparison: Comparison, about: Mapping[str, Any], confidence: float) -> list[str]:
    counts = {group.group: list(group.values) for group in comparison.groups}
    notes = [f"{name}: {', '.join(labels)}." for name, labels in counts.items()]
    few = any(len(labels) < MIN_SEEDS for labels in counts.values())
    many = any(len(labels) >= MIN_SEEDS for labels in counts.values())
    if few:
        notes.append(f"No interval over fewer than {MIN_SEEDS} seeds: the runs and their range are all that is known.")
    if many:
        notes.append(f"Interval: {confidence:.0%}, Student's t over seeds.")
    unit = f"{about.get('cluster', 'patient')}s"
    return [
        *notes,
        f"Seeds vary the training, not the {about['patients']:,} {unit} asked about ({about['requests']:,} samples); "
        f"how other {unit} would come out is told by each run's own intervals.",
        *about.get("notes", []),
    ]


def _between(groups: Sequence[Group], about: Mapping[str, Any]) -> list[Table]:
    """How two groups lie to each other, on each metric over all samples."""
    names = list(dict.fromkeys(group.group for group in groups))
    rows = []
    by_key = {(group.group, group.metric): group for group in groups if group.slice == "all"}
    for metric in dict.fromkeys(group.metric for group in groups if group.slice == "all"):
        for other in names[1:]:
            ours, theirs = by_key.get((names[0], metric)), by_key.get((other, metric))
            if ours is None or theirs is None:
                continue
            a, b = list(ours.values.values()), list(theirs.values.values())
            above = sum(x > y for x in a for y in b)
            rows.append(
                (metric, f"{names[0]} − {other}", f"{ours.mean - theirs.mean:+.1f}", f"{above} of {len(a) * len(b)}")
            )
    if not rows:
        return []
    columns = ("metric", "groups", "difference of means", f"pairs of runs with {names[0]} above")
    note = "No p: compare single runs for a test by patient; seeds this few support none."
    return [Table(f"{about['title']}: between groups of seeds, points", columns, tuple(rows), (note,))]
