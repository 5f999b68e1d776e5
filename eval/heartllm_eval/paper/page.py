"""`reports/README.md`: the results in one page. Every number comes from the tables and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from heartllm_eval.paper import figures
from heartllm_eval.paper.claims import Claim
from heartllm_eval.paper.evidence import Block, Runs
from heartllm_eval.paper.plan import Plan
from heartllm_eval.paper.tables import Made, cell_text, gap_text, suites_of
from heartllm_eval.rendering import Table, markdown_text

_SHOWN = ("verify", "choose", "query", "BLEU-4", "ROUGE-L", "clinical F1")
FINDINGS = 3


def markdown(plan: Plan, made: Mapping[str, Made], claims: Sequence[Claim], runs: Runs, data: Path) -> str:
    """The page."""
    parts = [
        "# Results",
        "Made by `heartllm-eval report` from the frozen runs in [runs](runs) and the data files in [figures](figures); "
        "`heartllm-eval report --check` fails where this page and they disagree. Nothing here is for clinical use.",
        *_setting(plan, made, runs),
        *_main_table(plan, made),
        *_findings(plan, claims),
        *_limits(plan, made, runs),
        *_files(plan, made, data),
        *_again(plan, runs),
    ]
    return "\n\n".join(parts) + "\n"


def _blocks(made: Mapping[str, Made]) -> list[Block]:
    return [block for part in made.values() for block in part.blocks]


def _setting(plan: Plan, made: Mapping[str, Made], runs: Runs) -> list[str]:
    size = plan.size()
    lines = [f"Size `{size.name}`: {size.about}."]
    if size.sites:
        lines.append(
            "Trained on the training splits of "
            + ", ".join(f"{site.recordings:,} recordings of synthetic site {site.name.upper()}" for site in size.sites)
            + " and of PTB-XL; asked about sites drawn anew with another seed, and about PTB-XL's test split "
            "of ECG-QA."
        )
    lines.append(
        "All systems share the language model, prompts, data, steps and seeds, and differ in what the model is fed "
        "for an "
        "ECG; budgets that are not equal are told below each table. Intervals are 95 %, by patient."
    )
    return ["## Setting", " ".join(lines)]


def _main_table(plan: Plan, made: Mapping[str, Made]) -> list[str]:
    """The decisive columns of the first suite of each table."""
    parts = ["## Main results"]
    for part in made.values():
        if not part.blocks:
            parts.append(f"{markdown_text(part.plan.title)}: not run yet.")
            continue
        block = part.blocks[0]
        columns = [column.name for column in part.plan.columns]
        names = [name for name in columns if name in _SHOWN] or columns[:1]
        rows = [
            (
                group.label if any(group.name == row.name for row in plan.rows) else f"  {group.label}",
                *(cell_text(block.cells.get((group.name, name))) for name in names),
                *(gap_text(block.gaps.get((group.name, name))) for name in names[:1]),
            )
            for group in block.groups
        ]
        main = block.groups[0].label
        notes = [f"All columns, suites and differences: tables/{part.plan.name}.md."]
        if block.missing:
            notes.insert(0, f"Not run yet: {', '.join(block.missing)}.")
        title = f"{part.plan.title}: {block.about['title']}, %"
        table = Table(title, ("system", *names, f"{main} less it, {names[0]}"), tuple(rows), tuple(notes))
        parts.append(table.markdown())
    return parts


def _findings(plan: Plan, claims: Sequence[Claim]) -> list[str]:
    told = [claim for claim in claims if claim.verdict != "not run yet"][:FINDINGS]
    lines = ["## Findings"]
    if not told:
        return [*lines, "Nothing that bears on the paper's claims was run yet."]
    for number, claim in enumerate(told, start=1):
        state = {"does not hold here": "against", "holds here": "for"}.get(claim.verdict)
        shown = [finding for finding in claim.findings if finding.state == (state or finding.state) and finding.where]
        decisive = shown[0] if shown else None
        lines.append(
            f"{number}. {markdown_text(claim.says)} **{claim.verdict.capitalize()}**"
            + (f": {markdown_text(decisive.text)}." if decisive else ".")
        )
    verdicts = ", ".join(f"{claim.name} {claim.verdict}" for claim in claims)
    if plan.size().explained:
        lines.append(markdown_text(plan.size().explained))
    lines.append(f"All eight claims with their evidence: [claims.md](claims.md) ({verdicts}).")
    return ["\n\n".join(lines)]


def _limits(plan: Plan, made: Mapping[str, Made], runs: Runs) -> list[str]:
    blocks = _blocks(made)
    lines = []
    synthetic = sum(bool(block.about.get("synthetic")) for block in blocks)
    derived = sum(bool(block.about.get("derived")) for block in blocks)
    if blocks:
        smallest = min(blocks, key=lambda block: int(block.about["patients"]))
        lines.append(
            f"- Of {len(blocks)} parts of tables, {synthetic} are of synthetic recordings and {derived} ask questions "
            "that are "
            f"derived from labels in ECG-QA's form. The smallest is asked of {smallest.about['patients']} patients "
            f"({smallest.suite})."
        )
    counts = {
        group.label: len(group.seeds)
        for block in blocks
        for group in block.groups
        if any(group.name == row.name for row in plan.rows)
    }
    if counts:
        shown = ", ".join(f"{label} {count}" for label, count in counts.items())
        lines.append(
            f"- Trainings a row: {shown}. Intervals are of patients, not of trainings; each front-end was trained "
            "once, so "
            "seeds differ in the language model alone."
        )
    if plan.size().note:
        lines.append(f"- {markdown_text(plan.size().note)}")
    lines.append(
        "- The language model is thousands of times smaller than the paper's, and so are the data. A verdict of this "
        "page "
        "is about this setting, and says little about the full size, which the same plan names "
        f"({', '.join(size.name for size in plan.sizes[1:]) or 'none'})."
    )
    missing = []
    for row in plan.rows:
        planned = suites_of(plan, row)
        lacking = [suite for suite in planned if not runs.seeds(row.name, suite)]
        if lacking:
            missing.append(row.label if len(lacking) == len(planned) else f"{row.label} on {', '.join(lacking)}")
    lines.append(f"- Not run yet: {'; '.join(missing)}." if missing else "- Every row of the plan was run.")
    return ["## Limits", "\n".join(lines)]


def _files(plan: Plan, made: Mapping[str, Made], data: Path) -> list[str]:
    lines = []
    for name, part in made.items():
        lines.append(
            f"- {markdown_text(part.plan.title)}: [Markdown](tables/{name}.md), [CSV](tables/{name}.csv), "
            f"[LaTeX](tables/{name}.tex)"
        )
    blocks = {name: part.blocks for name, part in made.items()}
    for entry in figures.FIGURES:
        links = figures.links(entry.name)
        there = links if entry.ready(data) else f"not measured yet (`{entry.measured_by}`)"
        lines.append(f"- {markdown_text(entry.title)}: {there}")
    for made_of in figures.FROM_TABLES:
        there = figures.links(made_of.name) if made_of.ready(plan, blocks) else "its rows were not run yet"
        lines.append(f"- {markdown_text(made_of.title)}: {there}")
    return ["## Tables and figures", "\n".join(lines)]


def _again(plan: Plan, runs: Runs) -> list[str]:
    hours = [
        float(facts["hours"])
        for row in plan.rows
        for regime in row.regimes
        for seed in range(row.seeds)
        if (facts := runs.training(row.name, seed, regime)).get("hours") is not None
    ]
    took = f" The trainings whose runs are frozen here took {sum(hours):.1f} hours together, blind controls apart."
    spent = took if hours else ""
    return [
        "## Again",
        "`make paper` trains and asks every row from nothing, resumable; `heartllm-eval paper reports/paper.toml "
        "--dry_run` "
        f"says what is open and how long it would take.{spent} `make report` makes this page again from the frozen "
        "runs, in "
        "minutes and without torch. What others have published goes into `published.toml`, by hand; our tables show it "
        "beside ours.",
    ]
