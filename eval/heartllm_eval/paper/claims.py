"""The paper's eight claims, each held against the experiment that could refute it. Verdicts are computed, never typed.

A finding is *for* a claim, *against* it, *open*, or *missing* (not run). A claim's verdict follows from its findings:

    does not hold here            a finding is against it
    not run yet                   nothing was run
    not run in full               none is against it, and some are missing
    holds here                    all are for it
    cannot be told at this size   none is against it, none missing, and some are open
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartllm_eval.paper import claim_data as data
from heartllm_eval.paper.evidence import Block, Gap
from heartllm_eval.paper.plan import Plan
from heartllm_eval.paper.tables import Made, gap_text
from heartllm_eval.rendering import markdown_text

State = Literal["for", "against", "open", "missing", "note"]  # a note counts for nothing
MARGIN = 2.0  # points: what codes may lose against soft tokens and still be said to read as well
_DECISIVE = ("verify", "choose", "query", "BLEU-4", "METEOR", "ROUGE-L", "clinical F1")


@dataclass(frozen=True)
class Finding:
    """One piece of evidence: what it says, with its interval, and the file that it stands in."""

    state: State
    text: str
    where: str


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims.

    Attributes:
        name: "C1". says: the claim in our words. refuted_by: the experiment that could refute it, and how.
    """

    name: str
    says: str
    refuted_by: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """By the rule in the module's docstring."""
        states = {finding.state for finding in self.findings} - {"note"}
        if "against" in states:
            return "does not hold here"
        if states <= {"missing"}:
            return "not run yet"
        if "missing" in states:
            return "not run in full"
        return "holds here" if states == {"for"} else "cannot be told at this size"


def judge(plan: Plan, made: Mapping[str, Made], folder: Path) -> list[Claim]:
    """All claims.

    Args:
        made: the tables. folder: of the figures' data.
    """
    see = _Tables(plan, made)
    return [
        Claim(
            "C1",
            "Discrete ECG tokens in an extended vocabulary let an LLM, its architecture untouched, read 12-lead ECGs "
            "and "
            "text in one sequence.",
            "The model is no better than the same model trained blind, or shown another patient's ECG; or codes read "
            "worse "
            f"than continuous soft tokens by a significant difference (as well: no worse than {MARGIN:g} points at the "
            "interval's end). That an exported checkpoint runs in plain transformers is tested, not measured "
            "(tests/heartllm/test_export.py).",
            (
                *see.gains("table1_qa", "blind"),
                *see.gains("table1_qa", f"{plan.main}/shuffled"),
                *see.no_worse("table1_qa", "without_disc"),
            ),
        ),
        Claim(
            "C2",
            "It leads on ECG-QA and on report generation.",
            "A rival or a control does significantly better at the same budget, in any of verify, choose, query, "
            "BLEU-4, METEOR, ROUGE-L, clinical F1.",
            tuple(
                finding
                for table in ("table1_qa", "table2_reports")
                for other in ("test", "time_llm", "clip", "retrieval", "majority", "blind")
                for finding in see.gains(table, other)
            ),
        ),
        Claim(
            "C3",
            "It generalises zero-shot to data that it was not tuned on.",
            "Trained on one site and asked about another, it is no better than the majority answer, the nearest "
            "training "
            "ECG, or the same model trained blind.",
            tuple(
                finding
                for other in ("majority", "retrieval", "blind")
                for finding in see.gains("table3_zero_shot", other)
            ),
        ),
        Claim(
            "C4",
            "Forecasting ECG tokens teaches the LLM temporal dynamics.",
            "Without the next-code loss, at as many steps of both stages, it does as well; or its forecasts of rhythm "
            "and intervals (rate, RR deviation, PR, QRS, QT, whether a rhythm can be told) are no better than "
            "repeating the last beat. A measure is against where the interval of the paired difference speaks for the "
            "repeated beat, for where it speaks for the model, and open otherwise; of the two ways to go on (greedy, "
            "sampled) all that can be read in 10 patients or more must agree. A drawn continuation is off by more than "
            "a best guess would be; another patient's half, beside it in the figure, says how much.",
            (
                *see.helps("table1_qa", "without_forecast_term"),
                *see.helps("table2_reports", "without_forecast_term"),
                *data.forecasts(folder),
            ),
        ),
        Claim(
            "C5",
            "Each part helps: patient features (TAB), forecasting (FT), discretisation (DISC).",
            "Taking a part away costs nothing anywhere, or gains somewhere. A part helps if taking it away costs "
            "significantly in at least one column of a suite and gains significantly in none.",
            tuple(
                finding
                for part in ("without_tab", "without_forecasting", "without_disc")
                for table in ("table1_qa", "table2_reports")
                for finding in see.helps(table, part)
            ),
        ),
        Claim(
            "C6",
            "In UMAP, TEST and Time-LLM keep ECG and text apart, CLIP mixes them partly, HeartLLM shares one space, "
            "without "
            "contrastive pairs.",
            "A linear probe tells the modalities apart in HeartLLM's space (AUC above 0.99; 0.5 where they are mixed; "
            "below "
            "0.9 speaks for the claim), neighbours are hardly mixed (kNN mixing below 0.2; 1 where they are; above 0.5 "
            "speaks for it), or either is as in the others; or HeartLLM mixes them no better than the "
            "same model "
            "untrained.",
            data.mixing(folder),
        ),
        Claim(
            "C7",
            "Attention of clinical questions falls on the segments that matter.",
            "On synthetic ECGs, where the finding's place is known, the top 20 % of windows by attention cover no "
            "more of "
            "the finding than chance, than the attention of another patient's ECG, or than the attention of a question "
            "about another kind of finding; or occlusion disagrees.",
            data.coverage(folder),
        ),
        Claim(
            "C8",
            "Reconstruction from tokens drops noise and keeps what matters.",
            "The copy of a noisy ECG lies no nearer to the clean one than the noisy ECG itself, or than a low-pass "
            "filter's or "
            "a DCT's at the same bit rate.",
            data.denoising(folder),
        ),
    ]


class _Tables:
    """Findings from the tables' paired differences."""

    def __init__(self, plan: Plan, made: Mapping[str, Made]) -> None:
        self.plan, self.made = plan, made

    def gains(self, table: str, other: str) -> list[Finding]:
        """One finding a suite: for, if the main row is significantly better in every decisive column."""

        def state(gaps: Sequence[Gap]) -> State:
            if any(gap.significant and (gap.value or 0) < 0 for gap in gaps):
                return "against"
            return "for" if all(gap.significant for gap in gaps) else "open"

        return self._each(table, other, state)

    def helps(self, table: str, other: str) -> list[Finding]:
        """One finding a suite: for, if some column is significantly better and none worse."""

        def state(gaps: Sequence[Gap]) -> State:
            better = any(gap.significant and (gap.value or 0) > 0 for gap in gaps)
            worse = any(gap.significant and (gap.value or 0) < 0 for gap in gaps)
            return "against" if worse else "for" if better else "open"

        return self._each(table, other, state)

    def no_worse(self, table: str, other: str) -> list[Finding]:
        """One finding a suite: for, if no column can be worse by `MARGIN`."""

        def state(gaps: Sequence[Gap]) -> State:
            if any(gap.significant and (gap.value or 0) < 0 for gap in gaps):
                return "against"
            return "for" if all(gap.low is not None and gap.low > -MARGIN for gap in gaps) else "open"

        return self._each(table, other, state)

    def _each(self, table: str, other: str, state: Callable[[Sequence[Gap]], State]) -> list[Finding]:
        made = self.made.get(table)
        own = f"{self.plan.main}/shuffled"
        labels = {row.name: row.label for row in self.plan.rows} | {own: "itself on another patient's ECG"}
        label = labels.get(other, other)
        main = self.plan.row(self.plan.main).label
        where, found, lacking = f"tables/{table}.md", [], []
        blocks = {block.suite: block for block in made.blocks} if made is not None else {}
        for suite in made.plan.suites if made is not None else ():
            gaps = _gaps(blocks[suite], other) if suite in blocks else {}
            if not gaps:
                lacking.append(suite)
                continue
            shown = ", ".join(f"{name} {gap_text(gap)}" for name, gap in gaps.items())
            found.append(Finding(state(list(gaps.values())), f"{main} less {label}, {suite}: {shown}", where))
        if lacking:
            found.append(Finding("missing", f"{main} less {label}: not run yet on {', '.join(lacking)}", where))
        return found


def _gaps(block: Block, other: str) -> dict[str, Gap]:
    """The decisive columns' differences to one row that have a value."""
    return {
        column: gap
        for (group, column), gap in block.gaps.items()
        if group == other and column in _DECISIVE and gap.value is not None
    }


def markdown(claims: Sequence[Claim]) -> str:
    """claims.md."""
    head = [
        "# The paper's claims, and what ours shows",
        "",
        "Made by `heartllm-eval report` from frozen runs and figure data. A verdict is about this setting: small "
        "models, "
        "synthetic hospitals and a part of PTB-XL (see README.md beside this page). Differences are in points with "
        "paired "
        "95 % intervals by patient; * is p < 0.05 after Holm's correction over the whole table, the interval off 0, "
        "and "
        "the same sign in every pair of trainings.",
        "",
        *_rule(),
        "",
        "| claim | verdict | for | against | open | missing |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for claim in claims:
        counts = [sum(f.state == state for f in claim.findings) for state in ("for", "against", "open", "missing")]
        head.append(f"| [{claim.name}](#{claim.name.lower()}) | {claim.verdict} | {' | '.join(map(str, counts))} |")
    parts = ["\n".join(head)]
    for claim in claims:
        lines = [f"## {claim.name}", "", f"**Claim.** {markdown_text(claim.says)}", ""]
        lines += [f"**Refuted if.** {markdown_text(claim.refuted_by)}", "", f"**Here: {claim.verdict}.**", ""]
        lines += [
            f"- *{finding.state}*: {markdown_text(finding.text)} ([{finding.where}]({finding.where}))"
            if finding.state != "missing"
            else f"- *missing*: {markdown_text(finding.text)}"
            for finding in claim.findings
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _rule() -> list[str]:
    return [
        "How a verdict is found: *does not hold here* if a finding is against the claim; otherwise *not run yet* if "
        "nothing "
        "was run and *not run in full* if something is missing; *holds here* if all findings are for it; otherwise "
        "*cannot be told at this size*. A finding that compares two rows on a suite is against if the difference has "
        "the "
        "wrong sign significantly in any column, for if it has the right sign significantly (in every column for "
        "C1-C3, "
        "in at least one for C4 and C5), and open otherwise.",
    ]
