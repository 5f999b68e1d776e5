"""How agreement with coded findings is counted, and the figures on PTB-XL that must not get worse unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartllm.errors import DataError, UsageError
from heartllm_eval import cli
from heartllm_eval.metrics.clinical.agreement import CODED_DENIED, NEAR, READ_ONLY, Reading, compare, repeatable
from heartllm_eval.metrics.clinical.agreement_report import (
    ENGLISH,
    ORIGINAL,
    build_tables,
    language,
    read_source,
)

RUNNER = CliRunner()


def test_counts_by_finding_and_likelihood() -> None:
    found = compare(
        [
            Reading("sinus rhythm. possible inferior infarct", {"SR": 0.0, "IMI": 50.0, "LVH": 100.0}),
            Reading("sinus rhythm. pvcs", {"SR": 0.0, "IMI": 15.0}),
        ]
    )
    assert (found.by_code["SR"].both, found.by_code["IMI"].both, found.by_code["IMI"].codes_only) == (2, 1, 1)
    assert found.micro.figures == pytest.approx((75.0, 60.0, 100 * 6 / 9))
    assert found.macro_f1 == pytest.approx((100 + 200 / 3 + 0) / 3)
    weighed = found.weighed  # 1 + .5 shared, 1 coded only; then 1 shared, 1 read only, .5 coded only
    assert (weighed.both, weighed.report_only, weighed.codes_only) == (2.5, 1.0, 1.5)
    assert found.by_likelihood == {"100, or not stated": (2, 3), "80": (0, 0), "50": (1, 1), "15 to 35": (0, 1)}


def test_kinds_of_disagreement_and_what_ptbxl_cannot_code() -> None:
    found = compare([Reading("anterior infarct. vt. pvcs. no lbbb", {"ASMI": 100.0, "CLBBB": 100.0})])
    assert dict(found.disagreements) == {
        (NEAR, "AMI", "ASMI"): 1,
        (READ_ONLY, "PVC", ""): 1,
        (CODED_DENIED, "", "CLBBB"): 1,
    }
    assert dict(found.added) == {"VTACH": 1}
    assert found.phrases["PVC"]["pvcs"] == 1
    assert found.merged.both == 1.0


def test_what_no_reading_of_a_text_can_reach() -> None:
    normal = [Reading("Sinus rhythm.  Normal ECG.", {"SR": 0.0, "NORM": 100.0}) for _ in range(3)]
    odd = Reading("sinus rhythm. normal ecg.", {"SR": 0.0, "LAFB": 100.0})
    count, ours, best = repeatable([*normal, odd, Reading("af", {"AFIB": 0.0})])
    assert count == 4
    assert ours == best == pytest.approx(100 * 2 * 7 / 16)
    assert repeatable([odd])[0] == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [("sinusrhythmus normales ekg", "German"), ("sinusrytm normalt ekg", "Swedish"), ("normal ecg.", "English")],
)
def test_languages(text: str, name: str) -> None:
    assert language(text) == name


def test_the_command_shows_findings() -> None:
    result = RUNNER.invoke(cli.app, ["lexicon", "AF with complete heart block. Possible inferior infarct."])
    assert result.exit_code == 0
    for word in ("AFIB", "3AVB", "uncertain", "Critical: af, complete_block; possibly: infarct."):
        assert word in result.output
    by_line = RUNNER.invoke(cli.app, ["lexicon", "-"], input="LBBB\nno LBBB\n")
    assert by_line.output.count("CLBBB") == 2
    assert "denied" in by_line.output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["lexicon"], UsageError),
        (["lexicon", "AF", "--check", "ptbxl"], UsageError),
        (["lexicon", "AF", "-o", "x.md"], UsageError),
        (["lexicon", "--check", "ptbxl"], UsageError),
        (["lexicon", "--check", "ptbxll", "--data_root", "."], UsageError),
        (["lexicon", "--check", "ptbxl", "--data_root", "."], DataError),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEARTLLM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert isinstance(RUNNER.invoke(cli.app, arguments).exception, error)


@pytest.mark.real_data
def test_agreement_with_ptbxl_does_not_fall(data_root: Path) -> None:
    source = read_source("ptbxl", data_root)
    originals, english = source.texts[ORIGINAL], source.texts[ENGLISH]
    assert compare(originals["train"]).micro.figures[2] > 75
    assert compare(english["train"]).micro.figures[2] > 83
    found = compare(originals["train"])
    assert found.reports > 1500
    for code in ("SR", "AFIB", "STACH", "SBRAD", "LPR", "SVARR", "QWAVE"):
        assert found.by_code[code].figures[2] > 90, code
    assert compare(originals["test"]).micro.figures[2] > 70


@pytest.mark.real_data
def test_the_check_prints_and_writes_its_tables(data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "agreement.md"
    result = RUNNER.invoke(cli.app, ["lexicon", "--check", "ptbxl", "--data_root", str(data_root), "-o", str(path)])
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    for words in ("The commonest disagreements", "test, reports in English", "no fixed reading", "likelihood"):
        assert words in text
        assert words in result.output
    with pytest.raises(DataError, match="split 'tset'"):
        build_tables(read_source("ptbxl", data_root), "tset")
