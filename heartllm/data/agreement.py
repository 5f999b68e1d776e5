"""How well the question builder reproduces genuine ECG-QA rows.

Every row below `<data_root>/ecgqa/ptbxl/{template,paraphrased}` whose recording is present is answered again from
PTB-XL's labels, and compared in answer (as a set), question number and, for the template files, wording. Rows that we
do not build are counted with the reason; they are neither agreements nor disagreements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heartllm.data.dataset import open_dataset
from heartllm.data.ecgqa import read_questions
from heartllm.data.questions import answer_to, find_asked
from heartllm.data.records import Entry, Question
from heartllm.errors import DataError

VERSIONS = ("template", "paraphrased")
COMPARISON = "compares two ECGs"
UNKNOWN = "asks what no template of ours asks"
ABSENT = "the recording is not present"
UNLABELLED = "the recording is not labelled for it"


@dataclass(frozen=True)
class Disagreement:
    """One genuine row that we answer otherwise."""

    version: str
    question: Question
    ours: tuple[str, ...]


@dataclass
class Tally:
    """Counts for one template in one version of the files; `wording` counts equal texts (template files only)."""

    rows: int = 0
    built: int = 0
    agree: int = 0
    wording: int = 0
    numbering: int = 0


@dataclass
class AgreementReport:
    """Counts by (version, template, attribute type), what was not built and why, and every disagreement."""

    tallies: dict[tuple[str, int, str], Tally] = field(default_factory=dict)
    not_built: Counter[tuple[str, str]] = field(default_factory=Counter)
    unlabelled: list[tuple[str, Question]] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)

    def total(self, version: str | None = None) -> Tally:
        """The sum over templates, of one version or of both."""
        chosen = [tally for key, tally in self.tallies.items() if version in (None, key[0])]
        return Tally(
            rows=sum(tally.rows for tally in chosen),
            built=sum(tally.built for tally in chosen),
            agree=sum(tally.agree for tally in chosen),
            wording=sum(tally.wording for tally in chosen),
            numbering=sum(tally.numbering for tally in chosen),
        )

    def add(self, version: str, question: Question, entries: Mapping[str, Entry]) -> None:
        """Answers one genuine row again and counts it."""
        key = (version, question.template_id, question.attribute_type)
        tally = self.tallies.setdefault(key, Tally())
        tally.rows += 1
        if len(question.ecg_id) != 1:
            self.not_built[version, COMPARISON] += 1
            return
        asked, entry = find_asked(question), entries.get(question.ecg_id[0])
        if asked is None or entry is None:
            self.not_built[version, UNKNOWN if asked is None else ABSENT] += 1
            return
        ours = answer_to(asked, entry)
        if ours is None:
            self.not_built[version, UNLABELLED] += 1
            self.unlabelled.append((version, question))
            return
        tally.built += 1
        tally.wording += version == "template" and asked.text == question.question
        tally.numbering += asked.question_id == question.question_id
        if set(ours) == set(question.answer):
            tally.agree += 1
        else:
            self.disagreements.append(Disagreement(version, question, ours))

    def to_markdown(self) -> str:
        """The report as Markdown: a table by template, then the rows that differ or were not built."""
        lines = [
            "| files | template | attribute type | rows | built | same answer | same wording | same question number |",
            "|---|---|---|---|---|---|---|---|",
        ]
        named = [
            ((version, str(number), kind), tally) for (version, number, kind), tally in sorted(self.tallies.items())
        ]
        named += [((version, "all", ""), self.total(version)) for version in VERSIONS if self.total(version).rows]
        for (version, number, kind), tally in named:
            wording = str(tally.wording) if version == "template" else "-"
            cells = (version, number, kind, tally.rows, tally.built, tally.agree, wording, tally.numbering)
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines += ["", f"Disagreements: {len(self.disagreements)}."]
        lines += [
            f"- {found.version}, ECG {found.question.ecg_id[0]}: {found.question.question} "
            f"ECG-QA {list(found.question.answer)}, ours {list(found.ours)}"
            for found in self.disagreements
        ]
        lines += ["", f"Not built: {sum(self.not_built.values())}."]
        lines += [f"- {version}: {count} rows, {why}" for (version, why), count in sorted(self.not_built.items())]
        lines += [
            f"- {version}, ECG {question.ecg_id[0]}: {question.question} ECG-QA {list(question.answer)}, ours none"
            for version, question in self.unlabelled
        ]
        return "\n".join(lines) + "\n"


def agreement(data_root: Path) -> AgreementReport:
    """Compares the builder with every genuine row below `data_root`.

    Raises:
        DataError: there are no ECG-QA files below `data_root`.
    """
    folder = data_root / "ecgqa" / "ptbxl"
    found = [version for version in VERSIONS if (folder / version).is_dir()]
    if not found:
        raise DataError("no ECG-QA files", remedy="It holds template/ and paraphrased/, as published.", where=folder)
    entries = {entry.record_id: entry for entry in open_dataset("ptbxl", data_root).entries()}
    report = AgreementReport()
    for version in found:
        for question in read_questions(folder / version):
            report.add(version, question, entries)
    return report
