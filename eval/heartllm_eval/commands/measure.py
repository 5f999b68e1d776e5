"""`heartllm-eval measure`: from checkpoints and recordings to the small data files that figures are drawn from.

Each figure's measurement is a module `measure_<name>` beside this one with a `register(app)`; add its name to `PARTS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

# In the order of --help.
PARTS = ("embeddings",)

DataOut = Annotated[
    Path, typer.Option("--output_path", "-o", help="Folder of figure data; each figure has its own folder inside.")
]


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help="Measures what figures show, and writes it to data files; `report` draws from those alone.",
    )
    for name in PARTS:
        importlib.import_module(f"heartllm_eval.commands.measure_{name}").register(group)
    app.add_typer(group, name="measure")
