"""`heartllm-eval freeze`: keeps of a run what its tables and paired differences need, and no one's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heartllm_eval.commands.shared import split_names

EPILOG = """**Examples**

`heartllm-eval freeze runs/mine -o reports/runs/heartllm/seed-0` (one folder a task)

`heartllm-eval freeze runs/mine -t ptbxl_qa -o frozen`"""


def freeze(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Folder to write to.")],
    tasks: Annotated[list[str] | None, typer.Option("--tasks", "-t", help="Only these suites.")] = None,
) -> None:
    """Writes a run's per-sample statistics, hashed and numbered: no texts, no answers, no ids. About 1 KB a system."""
    from heartllm_eval import frozen

    frozen.freeze(run, output_path, tasks=split_names(tasks), say=print)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(freeze)
