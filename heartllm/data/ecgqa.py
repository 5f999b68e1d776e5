"""ECG-QA's own files (version 1.0.2): JSON lists of questions, and the classes that each template allows as answers.

Oh et al., "ECG-QA", NeurIPS 2023 Datasets and Benchmarks. The published layout is
`ecgqa/ptbxl/{template,paraphrased}/{train,valid,test}/*.json` beside `answers_for_each_template.csv`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heartllm.data.dataset_json import Row, id_to_json, json_files, load_rows, save_rows
from heartllm.data.dataset_tables import read_rows
from heartllm.data.records import Question
from heartllm.errors import DataError

QUESTION_TYPES = (
    "single-verify",
    "single-choose",
    "single-query",
    "comparison_consecutive-verify",
    "comparison_consecutive-query",
    "comparison_irrelevant-verify",
    "comparison_irrelevant-query",
)
ATTRIBUTE_TYPES = ("scp_code", "noise", "stage_of_infarction", "extra_systole", "heart_axis", "numeric_feature")
CLASSES_FILE = "answers_for_each_template.csv"

Classes = Mapping[int, frozenset[str]]


def read_classes(path: Path) -> dict[int, frozenset[str]]:
    """`answers_for_each_template.csv`: template id -> the answers it allows."""
    table: dict[int, frozenset[str]] = {}
    for line, row in read_rows(path, ["template_id", "classes"]):
        try:
            table[int(row["template_id"])] = frozenset(map(str, ast.literal_eval(row["classes"])))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            raise DataError(
                "the row holds no template id and list of classes",
                remedy="Take the file as ECG-QA published it.",
                where=f"{path}:{line}",
            ) from None
    return table


def find_classes(file: Path) -> dict[int, frozenset[str]]:
    """The classes that lie with a question file: in its folder or one of the three above; else empty."""
    for folder in list(file.absolute().parents)[:4]:
        if (folder / CLASSES_FILE).is_file():
            return read_classes(folder / CLASSES_FILE)
    return {}


def parse_question(row: Row, classes: Classes) -> Question:
    """One row; fields beyond ECG-QA's own (`ecg_path`, `background`, ...) are left alone."""
    question_type = row.text("question_type", QUESTION_TYPES)
    ecg_id = row.ids("ecg_id")
    expected = 2 if question_type.startswith("comparison") else 1
    if len(ecg_id) != expected:
        raise row.error("ecg_id", f"{len(ecg_id)} ids for a {question_type} question", f"Give {expected}.")
    template_id, answer = row.integer("template_id"), row.texts("answer")
    if not answer:
        raise row.error("answer", "the answer is empty", "Where nothing applies, ECG-QA writes ['none'].")
    if template_id in classes:
        wrong = [part for part in answer if part not in classes[template_id]]
        if wrong:
            raise row.error(
                "answer",
                f"{wrong[0]!r} is no class of template {template_id}",
                f"The classes are in {CLASSES_FILE}: {', '.join(sorted(classes[template_id])[:4])}, ...",
            )
    return Question(
        template_id=template_id,
        question_id=row.integer("question_id"),
        sample_id=row.integer("sample_id"),
        question_type=question_type,
        attribute_type=row.text("attribute_type", ATTRIBUTE_TYPES),
        question=row.text("question"),
        answer=answer,
        ecg_id=ecg_id,
        attribute=() if row.fields.get("attribute") is None else row.texts("attribute"),
        derived=row.fields.get("derived") is True,
    )


def read_questions(path: str | Path, classes: Classes | None = None) -> list[Question]:
    """Reads ECG-QA rows.

    Args:
        path: a file, a folder (all .json files below it) or a glob pattern.
        classes: the answers each template allows; by default those of the `answers_for_each_template.csv` that lies
            with the files, and no check where there is none.

    Raises:
        DataError: naming the file, the row (from 1) and the field.
    """
    questions: list[Question] = []
    found: dict[Path, Classes] = {}
    for file in json_files(path):
        if classes is None and file.parent not in found:
            found[file.parent] = find_classes(file)
        allowed = found[file.parent] if classes is None else classes
        questions += [parse_question(Row(row, file, n), allowed) for n, row in enumerate(load_rows(file), start=1)]
    return questions


def question_to_row(question: Question) -> dict[str, Any]:
    """A question with ECG-QA's field names, order and types; `derived` is added where it is true."""
    row: dict[str, Any] = {
        "template_id": question.template_id,
        "question_id": question.question_id,
        "sample_id": question.sample_id,
        "question_type": question.question_type,
        "attribute_type": question.attribute_type,
        "question": question.question,
        "answer": list(question.answer),
        "ecg_id": [id_to_json(record_id) for record_id in question.ecg_id],
        "attribute": list(question.attribute) or None,
    }
    return {**row, "derived": True} if question.derived else row


def write_questions(questions: Iterable[Question], path: str | Path) -> None:
    """Writes questions as ECG-QA does; `read_questions` gives the same questions back."""
    save_rows((question_to_row(question) for question in questions), Path(path))
