"""`heartllm-eval measure attention`: figure 4 a-b, what in the ECG an answer looks at and depends on."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from heartllm.errors import UsageError
from heartllm_eval.commands.measure import DataOut
from heartllm_eval.commands.shared import checkpoint_arguments
from heartllm_eval.options import DataRoot

EPILOG = """**Examples**

`heartllm-eval measure attention -a checkpoint=DIR -d synthetic-a -d synthetic-b --data_root DATA -o
reports/figures/data`

`heartllm-eval measure attention -a checkpoint=DIR,device=cuda -d synthetic-a --example ptbxl -o reports/figures/data`

Only synthetic data sets say where a finding lies; `--example` adds a real ECG to the figure."""


def attention(
    model_args: Annotated[str, typer.Option("--model_args", "-a", help="checkpoint=DIR[,device=cuda][,threads=N].")],
    dataset: Annotated[list[str], typer.Option("--dataset", "-d", help="synthetic-a or synthetic-b; repeatable.")],
    output_path: DataOut,
    example: Annotated[
        str,
        typer.Option(
            "--example", help="A data set for one real example, such as ptbxl; its waveform goes into the data file."
        ),
    ] = "",
    split: Annotated[str, typer.Option("--split", help="Recordings of this split.")] = "test",
    per_kind: Annotated[int, typer.Option("--per_kind", "-n", min=1, help="Findings of each kind, a data set.")] = 12,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Of findings (extra beats, QRS, P and PR, ST-T, noise); repeatable."),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Recordings whose beats replace each ECG's.")] = 2,
    width: Annotated[int, typer.Option("--width", help="Positions (32 ms each) replaced at a time.")] = 5,
    stride: Annotated[int, typer.Option("--stride", help="Positions from one window to the next.")] = 4,
    place: Annotated[bool, typer.Option("--second_choice", help="Also by other codes at the same place.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 0,
    data_root: DataRoot = None,
) -> None:
    """Measures attention and occlusion, and how much of a known finding their top fifth covers."""
    from heartllm.data.synthetic.located import KINDS
    from heartllm.responder import Responder
    from heartllm_eval.figures.attention_data import measure, real_example, write
    from heartllm_eval.figures.attention_maps import Settings
    from heartllm_eval.requests import Workspace
    from heartllm_eval.schema import digest

    given = checkpoint_arguments(model_args, device="cpu")
    device = given["device"]
    if unknown := [name for name in kind or () if name not in KINDS]:
        raise UsageError(f"no kind {unknown[0]!r}", where="--kind", remedy=f"Choose some of: {', '.join(KINDS)}.")
    batch = 16 if device == "cpu" else 512
    settings = Settings(draws=draws, width=width, stride=stride, place=place, seed=seed, batch=batch)
    responder = Responder.load(Path(given["checkpoint"]), device=device, threads=int(given["threads"]))
    workspace = Workspace(tuple(data_root or ()))

    def say(text: str) -> None:
        print(f"\r{text}   ", end="", file=sys.stderr, flush=True)

    about: dict[str, Any] = {
        "checkpoint": responder.fingerprint,
        "datasets": dataset,
        "split": split,
        "per_kind": per_kind,
        "kinds": list(kind or KINDS),
        **asdict(settings),
    }
    parts = output_path / "attention" / f"parts-{digest(json.dumps(about), length=12)}"
    rows, heads, examples = measure(
        responder,
        workspace,
        dataset,
        parts,
        split=split,
        per_kind=per_kind,
        settings=settings,
        kinds=kind or (),
        say=say,
    )
    if example and (real := real_example(responder, workspace, example, split=split, settings=settings)) is not None:
        examples.append(real)
    summary = write(output_path / "attention", rows, heads, examples, about)
    shutil.rmtree(parts, ignore_errors=True)
    print(file=sys.stderr)
    for row in summary:
        if row["kind"] == "all" and row["measure"] in ("covered", "auc"):
            bounds = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
            told = f"{row['method']:42} {row['findings']:16} {row['measure']:8}"
            print(f"{told} {row['value']:.3f}{bounds}  of {row['samples']}")
    print(f"written to {output_path / 'attention'}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(attention)
