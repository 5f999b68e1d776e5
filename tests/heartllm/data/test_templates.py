"""The 42 templates: complete, worded, numbered as ECG-QA numbers them, and with the classes it allows."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import pytest

from heartllm.data.records import Question
from heartllm.data.templates import RANGES, STAGES, all_asked, in_order, options, templates
from heartllm.errors import DataError


def question(template_id: int, attribute: tuple[str, ...]) -> Question:
    template = templates()[template_id]
    return Question(template_id, 0, 0, template.type, template.attribute_type, "?", ("no",), ("1",), attribute)


def test_all_42_templates_with_several_paraphrases_of_ours() -> None:
    assert list(templates()) == list(range(1, 43))
    for template in templates().values():
        assert len(template.paraphrases) >= 3
        assert len({template.text, *template.paraphrases}) == len(template.paraphrases) + 1
        slots = set(re.findall(r"{(\w+)}", template.text))
        for paraphrase in template.paraphrases:
            assert set(re.findall(r"{(\w+)}", paraphrase)) == slots, paraphrase


def test_the_form_of_each_template() -> None:
    forms = {number: template.form for number, template in templates().items()}
    assert [number for number, form in forms.items() if form == "choose"] == [3, 4, 5, 6, 7, 21, 24, 30, 31, 37, 40]
    queries = [8, 9, 10, 11, 18, 19, 22, 25, 32, 33, 34, 38, 41, 42]
    assert [number for number, form in forms.items() if form == "query"] == queries


@pytest.mark.parametrize(
    ("template_id", "text", "question_id"),
    [
        (1, "Does this ECG show symptoms of non-diagnostic t abnormalities?", 0),
        (1, "Does this ECG show symptoms of conduction disturbance?", 62),
        (2, "Is this a normal ECG?", 63),
        (3, "Which symptom does this ECG show, st/t change or hypertrophy?", 65),
        (6, "Which form-related symptom does this ECG show, low amplitude t-wave or non-specific st elevation?", 1454),
        (6, "Which form-related symptom does this ECG show, non-specific t-wave changes or inverted t-waves?", 1457),
        (8, "What diagnostic symptoms does this ECG show, including uncertain symptoms?", 1519),
        (16, "Does this ECG show any rhythm-related symptoms?", 1527),
        (17, "Does this ECG show symptoms of non-specific st depression in lead III?", 1564),
        (24, f"Which stage of infarction is this ECG at, {STAGES[1]} or {STAGES[2]}?", 1695),
        (26, "Does this ECG show burst noise in lead aVR?", 1721),
        (28, "Does this ECG show any kind of noises in lead V6?", 1749),
        (34, "What leads are showing burst noise in this ECG?", 1855),
        (38, "What kind of extra systole does this ECG show?", 1864),
        (39, "Does the qt corrected of this ECG fall above the normal range?", 1881),
        (40, f"Which range does the rr interval of this ECG fall in, {RANGES[0]} or {RANGES[2]}?", 1883),
        (41, "What range does the pr interval of this ECG fall in?", 1902),
        (42, "What numeric features of this ECG fall within the normal range?", 1907),
    ],
)
def test_wording_and_number_as_in_released_rows(template_id: int, text: str, question_id: int) -> None:
    found = [asked for asked in all_asked() if asked.template.id == template_id and asked.text == text]
    assert [asked.question_id for asked in found] == [question_id]


def test_pools_have_ecg_qa_s_sizes() -> None:
    count = {number: sum(asked.template.id == number for asked in all_asked()) for number in templates()}
    assert count[1] == 63  # 59 statements and 4 superclasses
    assert count[4] == count[5] == 36 * 35 // 2
    assert count[6] == 18 * 17 // 2
    assert count[7] == 9 * 8 // 2
    assert count[17] == 10 * 12 + 3 * 2  # three statements are asked of limb and chest leads only
    assert count[39] == 17  # no P wave is too short


def test_texts_differ_wherever_the_thing_asked_differs() -> None:
    texts = [(asked.template.id, asked.text) for asked in all_asked()]
    assert len(set(texts)) == len(texts)
    assert not any("{" in text for _, text in texts)


def test_options_of_each_form() -> None:
    assert options(question(1, ("sinus rhythm",))) == ("no", "not sure", "yes")
    assert options(question(2, ("normal ecg",))) == ("no", "yes")
    pair = ("sinus tachycardia", "atrial flutter")
    assert options(question(7, pair)) == (*pair, "none")
    ranges = ("above the normal range of pr interval", "below the normal range of pr interval")
    assert options(question(40, ranges)) == ("above the normal range", "below the normal range", "none")
    assert "none" not in options(question(22, ()))
    assert options(question(34, ("static noise",)))[:2] == ("lead I", "lead II")


def test_comparisons_are_refused() -> None:
    comparison = Question(57, 0, 0, "comparison_irrelevant-verify", "scp_code", "?", ("no",), ("1", "2"), ())
    with pytest.raises(DataError, match="57"):
        options(comparison)


def test_answers_in_order() -> None:
    assert in_order({"lead V1", "lead aVR", "lead II"}) == ("lead II", "lead aVR", "lead V1")
    assert in_order({"sinus rhythm", "atrial flutter"}) == ("atrial flutter", "sinus rhythm")


@pytest.mark.real_data
def test_options_are_the_published_classes(data_root: Path) -> None:
    with (data_root / "ecgqa" / "ptbxl" / "answers_for_each_template.csv").open(encoding="utf-8") as file:
        classes = {int(row["template_id"]): set(ast.literal_eval(row["classes"])) for row in csv.DictReader(file)}
    ours: dict[int, set[str]] = {}
    for asked in all_asked():
        ours.setdefault(asked.template.id, set()).update(options(question(asked.template.id, asked.attribute)))
    assert ours == {number: classes[number] for number in range(1, 43)}
