"""`heartllm-eval measure`: from checkpoints and recordings to the small data files that figures are drawn from.

Each figure's measurement is a module `measure_<name>` beside this one with a `register(app)`, found by that name.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Annotated

import typer

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
    import heartllm_eval.commands as here

    for name in sorted(module.name for module in pkgutil.iter_modules(here.__path__)):
        if name.startswith("measure_"):
            importlib.import_module(f"{here.__name__}.{name}").register(group)
    app.add_typer(group, name="measure")
