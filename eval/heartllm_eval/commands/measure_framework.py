"""`heartllm-eval measure framework`: figure 2, a checkpoint's own shapes and counts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heartllm_eval.commands.measure import DataOut

EPILOG = """**Examples**

`heartllm-eval measure framework --checkpoint DIR -o reports/figures/data`"""


def framework(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="Checkpoint folder.")],
    output_path: DataOut,
    system: Annotated[str, typer.Option("--system", help="Its name.")] = "HeartLLM",
    seed: Annotated[int, typer.Option("--seed", help="Of the synthetic ECG that is drawn.")] = 0,
) -> None:
    """Reads shapes, counts, prompt and training steps from a checkpoint."""
    from heartllm.responder import Responder
    from heartllm_eval.figures.anatomy import read_anatomy, write_anatomy
    from heartllm_eval.figures.framework import rows

    anatomy = read_anatomy(Responder.load(checkpoint), checkpoint, system, seed)
    for row in rows(anatomy):
        print(f"{row['part']:24} {row['value']}")
    print(f"written to {write_anatomy(anatomy, output_path / 'framework.json')}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(framework)
