"""ECG-QA's files: reading, refusing, and writing back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.authors_rows import AuthorsRow, read_authors_rows, write_authors_rows
from heartllm.data.ecgqa import ATTRIBUTE_TYPES, QUESTION_TYPES, read_questions, write_questions
from heartllm.data.records import Question
from heartllm.errors import DataError

ROW: dict[str, Any] = {
    "template_id": 1,
    "question_id": 0,
    "sample_id": 5,
    "question_type": "single-verify",
    "attribute_type": "scp_code",
    "question": "Does this ECG show symptoms of non-diagnostic t abnormalities?",
    "answer": ["yes"],
    "ecg_id": [11758],
    "attribute": ["non-diagnostic t abnormalities"],
}
PAIR = ROW | {"question_type": "comparison_irrelevant-query", "ecg_id": [3, 4], "attribute": None, "template_id": 68}


def write(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return path


def test_one_and_two_ecg_rows(tmp_path: Path) -> None:
    one, two = read_questions(write(tmp_path / "rows.json", [ROW, PAIR]))
    assert (one.ecg_id, one.attribute, one.answer, one.derived) == (
        ("11758",),
        ("non-diagnostic t abnormalities",),
        ("yes",),
        False,
    )
    assert (two.ecg_id, two.attribute) == (("3", "4"), ())


def test_a_file_a_folder_and_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "train" / "00000.json", [ROW])
    write(tmp_path / "train" / "10000.json", [ROW | {"sample_id": 6}])
    write(tmp_path / "test" / "00000.json", [ROW | {"sample_id": 7}])
    found = [
        [q.sample_id for q in read_questions(p)] for p in (tmp_path, tmp_path / "train", tmp_path / "*" / "0*.json")
    ]
    assert found == [[7, 5, 6], [5, 6], [7, 5]]
    with pytest.raises(DataError, match="no JSON file is here"):
        read_questions(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ecg_id": ...}, "ecg_id"),
        ({"ecg_id": []}, "ecg_id"),
        ({"ecg_id": [1, 2]}, "ecg_id"),
        ({"ecg_id": [1.5]}, "ecg_id"),
        ({"template_id": "1"}, "template_id"),
        ({"template_id": True}, "template_id"),
        ({"answer": "yes"}, "answer"),
        ({"answer": []}, "answer"),
        ({"answer": [1]}, "answer"),
        ({"question": " "}, "question"),
        ({"question_type": "single"}, "question_type"),
        ({"attribute_type": "scp"}, "attribute_type"),
        ({"attribute": "x"}, "attribute"),
    ],
)
def test_a_wrong_row_names_file_row_and_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    row = {key: value for key, value in (ROW | change).items() if value is not ...}
    with pytest.raises(DataError) as caught:
        read_questions(write(tmp_path / "rows.json", [ROW, row]))
    assert f"rows.json, row 2, field '{field}'" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', "[NaN", "[" * 100_000])
def test_wrong_json_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"rows\.json"):
        read_questions(write(tmp_path / "rows.json", text))


def test_an_answer_outside_the_templates_classes(tmp_path: Path) -> None:
    write(tmp_path / "answers_for_each_template.csv", "template_id,classes\n1,\"['no', 'yes']\"\n")
    path = write(tmp_path / "template" / "test" / "0.json", [ROW, ROW | {"answer": ["perhaps"]}])
    with pytest.raises(DataError, match=r"0\.json, row 2, field 'answer': 'perhaps' is no class of template 1"):
        read_questions(path)
    assert len(read_questions(path, classes={})) == 2


TEXT = st.text(min_size=1).filter(lambda text: bool(text.strip()))
IDS = st.integers(0, 10**8).map(str) | TEXT.filter(lambda text: not text.isdigit())


@st.composite
def any_question(draw: st.DrawFn) -> Question:
    kind = draw(st.sampled_from(QUESTION_TYPES))
    count = 2 if kind.startswith("comparison") else 1
    number = st.integers(0, 10**6)
    return Question(
        template_id=draw(number),
        question_id=draw(number),
        sample_id=draw(number),
        question_type=kind,
        attribute_type=draw(st.sampled_from(ATTRIBUTE_TYPES)),
        question=draw(TEXT),
        answer=tuple(draw(st.lists(TEXT, min_size=1, max_size=3))),
        ecg_id=tuple(draw(st.lists(IDS, min_size=count, max_size=count))),
        attribute=tuple(draw(st.lists(TEXT, max_size=2))),
        derived=draw(st.booleans()),
    )


@given(st.lists(any_question(), max_size=4))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, questions: list[Question]) -> None:
    path = tmp_path_factory.mktemp("questions") / "rows.json"
    write_questions(questions, path)
    assert read_questions(path) == questions
    rows = [AuthorsRow(question, ("a/b",), "Patient Information: - Age: 54;") for question in questions]
    write_authors_rows(rows, path)
    assert read_authors_rows(path) == rows


def test_the_authors_rows(tmp_path: Path) -> None:
    background = "Patient Information: - Patient ID: 9496; - Age: 54; - Sex: 0; - Height: nan; - Weight: 59; Recording"
    extra = {"ecg_path": ["records500/11000/11758_hr"], "background": background}
    plain, full = read_authors_rows(write(tmp_path / "rows.json", [ROW, ROW | extra]))
    assert (plain.paths, plain.features) == ((), "")
    assert (full.paths, full.features) == (
        ("records500/11000/11758_hr",),
        "Age: 54 years. Sex: male. Weight: 59 kg.",
    )
    assert read_questions(tmp_path / "rows.json") == [plain.question, full.question]


@pytest.mark.real_data
def test_genuine_rows(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "ecgqa" / "ptbxl"
    counts = [len(read_questions(folder / "template" / split)) for split in ("train", "valid", "test")]
    assert counts == [1643, 94, 16]
    source = folder / "template" / "train" / "00000.json"
    write_questions(read_questions(source), tmp_path / "0.json")
    assert json.loads((tmp_path / "0.json").read_text()) == json.loads(source.read_text())
