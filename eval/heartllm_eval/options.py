"""What the commands share: options, and where tables are printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Verbosity = Annotated[int, typer.Option("--verbosity", min=0, max=1, help="0: warnings and results only.")]
Include = Annotated[
    list[Path] | None, typer.Option("--include_path", help="Folder (or file) with suites of your own; repeatable.")
]
DataRoot = Annotated[
    list[Path] | None,
    typer.Option(
        "--data_root",
        envvar="HEARTLLM_DATA",
        help="Folder that holds ptbxl/, ecgqa/, reports/, synthetic-a/, ...; repeatable.",
    ),
]
Resamples = Annotated[int, typer.Option("--confidence_n", min=100, help="Bootstrap resamples.")]
Confidence = Annotated[float, typer.Option("--confidence", min=0.5, max=0.9999, help="Confidence of the intervals.")]
Format = Annotated[str, typer.Option("--format", help="Of the tables: text, markdown, csv, json or latex.")]
Output = Annotated[Path | None, typer.Option("--output_path", "-o", help="Folder to write to.")]


def console() -> Console:
    """Standard output; into a pipe or file, tables are as wide as they need to be."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console()
    return Console(width=int(os.environ.get("COLUMNS", "240")), highlight=False)
