"""`heartllm-eval export`: runs as they may be handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """**Examples**

`heartllm-eval export runs/ours runs/theirs -o shared` (they compare with each other as before)

`heartllm-eval export runs/ours -o shared --features` (also age, sex, height, weight as the model was told)

Numbers alone, without any text: `heartllm-eval freeze`."""


def export(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders.")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="New folder to write to.")],
    deidentify: Annotated[
        bool,
        typer.Option(
            "--deidentify/--keep_ids", help="Replace ids of samples, recordings and patients by numbers kept nowhere."
        ),
    ] = True,
    features: Annotated[bool, typer.Option("--features", help="Keep the patient features that were shown.")] = False,
) -> None:
    """Writes runs for others: questions, answers and scores, without ids, patient features, paths or machine."""
    from heartllm_eval.deidentify import export as write

    for folder in write(runs, output_path, features=features, keep_ids=not deidentify):
        print(folder)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(export)
