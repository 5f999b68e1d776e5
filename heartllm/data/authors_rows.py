"""The row format of HeartLLM's authors: ECG-QA rows with `ecg_path` and `background` added.

Their files are called `template_{train,valid,test}_background.json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from heartllm.data.dataset_json import Row, json_files, load_rows, save_rows
from heartllm.data.ecgqa import Classes, find_classes, parse_question, question_to_row
from heartllm.data.records import Question
from heartllm.data.tabular import features_from_background


@dataclass(frozen=True)
class AuthorsRow:
    """A question with the waveform paths and the patient text that the authors' files carry.

    Attributes:
        paths: one for each ECG, as written; empty where the row has none.
        background: their patient text; `features` turns it into ours, without ids and dates.
    """

    question: Question
    paths: tuple[str, ...] = ()
    background: str = ""

    @property
    def features(self) -> str:
        """The TAB text of the background."""
        return features_from_background(self.background)


def read_authors_rows(path: str | Path, classes: Classes | None = None) -> list[AuthorsRow]:
    """Reads rows from a file, a folder or a glob pattern; plain ECG-QA rows are accepted as well.

    Raises:
        DataError: naming the file, the row (from 1) and the field.
    """
    rows = []
    for file in json_files(path):
        allowed = find_classes(file) if classes is None else classes
        for number, fields in enumerate(load_rows(file), start=1):
            row = Row(fields, file, number)
            paths: tuple[str, ...] = ()
            if fields.get("ecg_path") is not None:
                paths = row.texts("ecg_path") if isinstance(fields["ecg_path"], list) else (row.text("ecg_path"),)
            background = row.get("background", str, "a text") if fields.get("background") is not None else ""
            rows.append(AuthorsRow(parse_question(row, allowed), paths, background))
    return rows


def write_authors_rows(rows: Iterable[AuthorsRow], path: str | Path) -> None:
    """Writes rows in the authors' format; `read_authors_rows` gives the same rows back."""
    save_rows(
        ({**question_to_row(row.question), "ecg_path": list(row.paths), "background": row.background} for row in rows),
        Path(path),
    )
