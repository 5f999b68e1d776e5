"""`heartllm-eval tables`: the tables of finished runs, for papers and for further computation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heartllm_eval.commands.shared import check_format, show
from heartllm_eval.options import Format

EPILOG = """**Examples**

`heartllm-eval tables runs/mine --format latex > results.tex` (needs booktabs)

`heartllm-eval tables runs/mine --format csv > figures.csv` (every number behind the tables, one a row)"""


def tables(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    format: Format = "text",
) -> None:
    """Prints the tables of finished runs from run.json; nothing is computed again."""
    from heartllm.errors import DataError
    from heartllm_eval.records import read_record

    check_format(format)
    records = {folder: read_record(folder) for folder in runs}
    for folder, record in records.items():
        if not record.figures:
            raise DataError(
                f"the run has no scores yet (status {record.status!r})",
                where=folder,
                remedy=f"Finish it, or score it: heartllm-eval score {folder}.",
            )
    show({str(folder): record for folder, record in records.items()}, format)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(tables)
