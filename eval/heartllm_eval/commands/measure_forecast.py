"""`heartllm-eval measure forecast`: how a checkpoint goes on with an ECG, against repeating its last beat."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartllm_eval.commands.measure import DataOut
from heartllm_eval.commands.shared import checkpoint_arguments, draw_recordings
from heartllm_eval.options import DataRoot

if TYPE_CHECKING:
    from heartllm.data.records import Entry
    from heartllm.ecg.recording import Recording
    from heartllm.responder import Responder
    from heartllm_eval.figures.forecast_data import Shown
    from heartllm_eval.figures.forecast_measures import Integers, Row
    from heartllm_eval.requests import Workspace

FIT = 300  # training recordings that frequencies of codes are learnt on

EPILOG = """**Examples**

`heartllm-eval measure forecast -a checkpoint=DIR -d ptbxl --data_root DATA -o reports/figures/data`

`heartllm-eval measure forecast -a checkpoint=DIR,device=cuda -d synthetic-a -n 400 -o reports/figures/data`

The second half of each ECG is forecast code by code, greedily and once by sampling, and decoded; rate, rhythm and
intervals are read off it. Needs a checkpoint that reads codes. The same command goes on where it was stopped."""


def forecast(
    model_args: Annotated[str, typer.Option("--model_args", "-a", help="checkpoint=DIR[,device=cuda][,threads=N].")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="synthetic-a, ptbxl, ...")],
    output_path: DataOut,
    split: Annotated[str, typer.Option("--split", help="Recordings of this split.")] = "test",
    recordings: Annotated[int, typer.Option("--recordings", "-n", min=2, help="At most so many, drawn.")] = 100,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Of each ECG that are known; the rest is forecast.")
    ] = 5.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw, the sampled forecasts and the intervals.")] = 0,
    data_root: DataRoot = None,
) -> None:
    """Forecasts the second half of ECGs and measures rate, rhythm, intervals and next codes against baselines."""
    from heartllm.responder import Responder
    from heartllm_eval.figures.forecast_data import check, measure, write
    from heartllm_eval.figures.forecast_measures import summarise
    from heartllm_eval.requests import Workspace
    from heartllm_eval.schema import digest

    given = checkpoint_arguments(model_args, device="cpu")
    device = given["device"]
    responder = Responder.load(Path(given["checkpoint"]), device=device, threads=int(given["threads"]))
    known = check(responder, seconds)
    workspace = Workspace(tuple(data_root or ()))
    shown = read_shown(workspace, dataset, split, recordings, seed)
    about: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "recordings": len(shown),
        "patients": len({one.patient for one in shown}),
        "checkpoint": responder.fingerprint,
        "known_codes": known,
        "seed": seed,
    }
    records = [one.record for one in shown]
    parts = output_path / f"forecast-parts-{digest(json.dumps([about, records]), length=12)}"
    rows = summarise(
        measure(
            responder,
            shown,
            lambda: known_codes(responder, workspace, dataset, shown, known, seed),
            parts,
            known=known,
            seed=seed,
            batch=16 if device == "cpu" else 128,
            say=lambda text: print(f"\r{text}   ", end="", file=sys.stderr, flush=True),
        ),
        seed=seed,
    )
    print(file=sys.stderr)
    for row in rows:
        print(_line(row))
    print(f"written to {write(output_path / 'forecast' / f'{dataset}.json', rows, about)}", file=sys.stderr)
    shutil.rmtree(parts, ignore_errors=True)


def read_shown(workspace: Workspace, dataset: str, split: str, most: int, seed: int) -> list[Shown]:
    """Up to `most` recordings, drawn with `seed`; unusable ones are left out with a warning."""
    from heartllm_eval.figures.forecast_data import Shown
    from heartllm_eval.schema import cluster_id

    def prepare(entry: Entry, recording: Recording) -> Shown:
        return Shown(entry.record_id, cluster_id(dataset, entry.patient_id), recording)

    return draw_recordings(workspace, dataset, split, most, seed, prepare)


def known_codes(
    responder: Responder, workspace: Workspace, dataset: str, shown: Sequence[Shown], known: int, seed: int
) -> Integers:
    """(R, N) codes of up to `FIT` training recordings; without a training split, what is known of those measured."""
    import numpy as np

    if workspace.dataset(dataset).entries("train"):
        learnt = [responder.encode(one.recording) for one in read_shown(workspace, dataset, "train", FIT, seed)]
    else:
        learnt = [responder.encode(one.recording)[:known] for one in shown]
    return np.stack(learnt).astype(np.int64)


def _line(row: Row) -> str:
    def between(name: str, sign: str = "") -> str:
        low, high = (row[f"{name}_{end}" if name == "gain" else end] for end in ("low", "high"))
        bounds = "" if low is None else f" [{low:{sign}.3g}, {high:{sign}.3g}]"
        return "-" if row[name] is None else f"{row[name]:{sign}.3g}{bounds}"

    name = f"{row['measure']}, {row['unit']}" if row["unit"] else row["measure"]
    return f"{name:24} {row['system']:17} {between('value'):26} gain {between('gain', '+'):28} of {row['pairs']}"


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(forecast)
