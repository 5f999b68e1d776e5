"""`heartllm-eval measure embeddings`: figure 1, ECG and text in the space of the language model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartllm.errors import UsageError
from heartllm_eval.commands.measure import DataOut
from heartllm_eval.commands.shared import checkpoint_arguments, draw_recordings
from heartllm_eval.options import DataRoot

if TYPE_CHECKING:
    from heartllm.data.records import Entry
    from heartllm.ecg.recording import Recording
    from heartllm.responder import Responder
    from heartllm_eval.figures.embedding_vectors import Shown
    from heartllm_eval.requests import Workspace

EPILOG = """**Examples**

`heartllm-eval measure embeddings -a checkpoint=DIR -d synthetic-a --data_root DATA -o reports/figures/data`

`heartllm-eval measure embeddings -a checkpoint=DIR,untrained=true -d synthetic-a -o reports/figures/data`
(the control: the same model before training)

`heartllm-eval measure embeddings -a checkpoint=runs/clip --system CLIP -d ptbxl -o reports/figures/data`"""


def embeddings(
    model_args: Annotated[str, typer.Option("--model_args", "-a", help="checkpoint=DIR[,untrained=true][,threads=N].")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="synthetic-a, ptbxl, ...: its entries have reports.")],
    output_path: DataOut,
    system: Annotated[str, typer.Option("--system", help="Its name in the figure.")] = "",
    split: Annotated[str, typer.Option("--split", help="Recordings of this split.")] = "test",
    recordings: Annotated[int, typer.Option("--recordings", "-n", min=40, help="At most so many, drawn.")] = 400,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw, the folds, the intervals and UMAP.")] = 0,
    data_root: DataRoot = None,
) -> None:
    """Measures how far ECG and text vectors lie apart (probe AUC, kNN mixing, recall) and projects them with UMAP."""
    from heartllm.responder import Responder
    from heartllm_eval.figures.embedding_vectors import clouds, untrained
    from heartllm_eval.figures.embeddings import measure, write_panel
    from heartllm_eval.requests import Workspace

    given = checkpoint_arguments(model_args, untrained="false")
    fresh = given["untrained"]
    if fresh not in ("true", "false"):
        raise UsageError(f"untrained={fresh!r}", where="--model_args", remedy="Write untrained=true, or leave it out.")
    responder = Responder.load(Path(given["checkpoint"]), threads=int(given["threads"]))
    if fresh == "true":
        responder = untrained(responder, seed)
    shown = read_shown(responder, Workspace(tuple(data_root or ())), dataset, split, recordings, seed)
    measured: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "recordings": len(shown),
        "patients": len({item.patient for item in shown}),
        "checkpoint": responder.fingerprint,
        "untrained": fresh == "true",
    }
    name = system or ("untrained" if fresh == "true" else "HeartLLM")
    panel = measure(name, clouds(responder, shown, seed=seed), measured, seed=seed)
    for row in panel.numbers:
        bounds = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
        print(f"{row['level']:6} {row['measure']:18} {row['value']:.3f}{bounds}  chance {row['chance']:.3f}")
    print(f"written to {write_panel(panel, output_path / 'embeddings')}", file=sys.stderr)


def read_shown(
    responder: Responder, workspace: Workspace, dataset: str, split: str, most: int, seed: int
) -> list[Shown]:
    """Up to `most` recordings with reports, drawn with `seed`; unusable ones are left out with a warning."""
    from heartllm_eval.figures.embedding_vectors import Shown

    def prepare(entry: Entry, recording: Recording) -> Shown:
        return Shown(entry.patient_id, responder.encode(recording), entry.report or "")

    return draw_recordings(workspace, dataset, split, most, seed, prepare, lambda entry: bool(entry.report))


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(embeddings)
