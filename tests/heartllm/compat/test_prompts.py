"""What is asked, in which order, and the patient text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.compat.prompts import MAX_NEW_TOKENS, Prompts, authors_background, load_prompts
from heartllm.data.records import Entry
from heartllm.data.tabular import features_from_background, patient_features
from heartllm.errors import UsageError


def entry(**changes: object) -> Entry:
    known = {"age": 54.0, "sex": "female", "weight": 59.0, "patient_id": "9496", "source": "ptbxl"}
    return Entry(record_id="17014", path=Path("x"), **{**known, **changes})  # type: ignore[arg-type]


def test_the_question_stands_before_the_ecg_and_without_the_patient() -> None:
    before, after = load_prompts().parts("Does this ECG show {ecg} or {background}?", "Age: 54")
    assert "Question: Does this ECG show {ecg} or {background}?" in before  # a question is text, whatever it holds
    assert after == "Answer:"
    assert "Age: 54" not in before + after


def test_a_report_is_asked_with_the_background() -> None:
    before, after = load_prompts().parts(None, "Patient Information: - Age: 54;")
    assert "Background: Patient Information: - Age: 54;" in before
    assert after == " Report:"
    assert MAX_NEW_TOKENS == {"qa": 170, "report": 200}


def test_background_is_the_authors() -> None:
    wanted = "Patient Information: - Patient ID: 9496; - Age: 54; - Sex: 1; - Height: nan; - Weight: 59;"
    assert authors_background(entry()) == wanted
    assert "- Age: 300; - Sex: 0;" in authors_background(entry(age=90.0, age_censored=True, sex="male"))
    assert "- Age: nan; - Sex: nan;" in authors_background(entry(age=None, sex=None))
    for site in ("mimic", "synthetic-b"):
        assert authors_background(entry(source=site)) == ""


@given(
    age=st.none() | st.integers(18, 89).map(float),
    sex=st.sampled_from([None, "male", "female"]),
    height=st.none() | st.integers(120, 210).map(float),
    weight=st.none() | st.integers(30, 180).map(float),
)
def test_background_reads_back_as_our_features(age: object, sex: object, height: object, weight: object) -> None:
    one = entry(age=age, sex=sex, height=height, weight=weight)
    assert features_from_background(authors_background(one)) == patient_features(one)


def test_prompts_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "words.toml"
    path.write_text('qa = "{question} {ecg} >"\nreport = "{ecg}Report"\nbos = false\n')
    prompts = load_prompts(path)
    assert prompts == Prompts("{question} {ecg} >", "{ecg}Report", bos=False)
    assert prompts.parts("Why?", "") == ("Why? ", " >")
    assert prompts.parts(None, "unused") == ("", "Report")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('qa = "{question}"\nreport = "{ecg}"', r"qa must hold \{ecg\} once"),
        ('qa = "{ecg}"\nreport = "{ecg}"', r"qa must hold \{question\} once"),
        ('qa = "{ecg}{question}"\nreport = "{ecg}{ecg}"', r"report must hold \{ecg\} once"),
        ('qa = "{ecg}{question}"\nraport = "{ecg}"', "Did you mean 'report'"),
        ("qa = ", "not valid TOML"),
    ],
)
def test_prompts_that_cannot_work(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "words.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_prompts(path)
    with pytest.raises(UsageError, match="no such file"):
        load_prompts(tmp_path / "absent.toml")
