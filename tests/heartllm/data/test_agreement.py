"""Agreement of the question builder with genuine ECG-QA rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartllm.data.agreement import COMPARISON, UNLABELLED, AgreementReport, agreement
from heartllm.data.records import Entry, Labels, Question
from heartllm.errors import DataError


def test_a_report_counts_and_lists_what_differs() -> None:
    entry = Entry("7", "7", "ptbxl", Path("x"), Labels(noise={"static noise": frozenset(("V1",))}))
    report = AgreementReport()

    def add(
        answer: str, lead: str = "V1", kind: str = "static noise", text: str = "Does this ECG show {} in lead {}?"
    ) -> None:
        row = Question(26, 1709, 0, "single-verify", "noise", text.format(kind, lead), (answer,), ("7",), (kind,))
        report.add("template", row, {"7": entry})

    add("yes")
    add("yes", text="Is there {} in lead {}?")
    add("yes", lead="V2")
    add("no", kind="burst noise")
    report.add(
        "template",
        Question(68, 0, 0, "comparison_irrelevant-query", "numeric_feature", "?", ("none",), ("7", "8"), ()),
        {},
    )
    total = report.total()
    assert (total.rows, total.built, total.agree, total.wording, total.numbering) == (5, 3, 2, 2, 3)
    assert report.not_built == {("template", UNLABELLED): 1, ("template", COMPARISON): 1}
    assert [found.ours for found in report.disagreements] == [("no",)]
    text = report.to_markdown()
    assert "| template | 26 | noise | 4 | 3 | 2 | 2 | 3 |" in text
    assert "ECG-QA ['yes'], ours ['no']" in text


def test_without_files_there_is_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ECG-QA files"):
        agreement(tmp_path)


@pytest.mark.real_data
def test_every_genuine_row_that_is_built_agrees(data_root: Path) -> None:
    """Measured on the development recordings: 1,549 of 1,549 template rows, 1,505 of 1,505 paraphrased ones.

    Not built: comparisons of two ECGs, and two recordings whose static noise is noted as "mittel" (medium) without a
    lead; ECG-QA answers "no" for any lead there.
    """
    report = agreement(data_root)
    for version, built in (("template", 1549), ("paraphrased", 1505)):
        total = report.total(version)
        assert total.built >= built
        assert total.agree == total.built
        assert total.numbering == total.built
        assert report.not_built[version, UNLABELLED] <= 2
    assert report.total("template").wording == report.total("template").built
    assert report.disagreements == []
    assert len(report.to_markdown().splitlines()) > 15
