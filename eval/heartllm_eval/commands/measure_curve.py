"""`heartllm-eval measure curve`: points of learning curves and of scaling, from frozen runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heartllm.errors import UsageError
from heartllm_eval.commands.measure import DataOut
from heartllm_eval.options import Confidence, Resamples

EPILOG = """**Examples**

`heartllm-eval measure curve learning --run 500=FROZEN/ptbxl_qa --run 1500=OTHER/ptbxl_qa -o reports/figures/data`

`heartllm-eval measure curve scaling --run 1.4e6=A/ptbxl_qa --run 135e6=B/ptbxl_qa -o reports/figures/data`

Runs at the same place are seeds of one training."""
KINDS = ("learning", "scaling")


def curve(
    kind: Annotated[str, typer.Argument(help="learning (places are training ECGs) or scaling (parameters).")],
    output_path: DataOut,
    run: Annotated[
        list[str] | None, typer.Option("--run", metavar="PLACE=FOLDER", help="A frozen run of one suite; repeatable.")
    ] = None,
    system: Annotated[str, typer.Option("--system", help="Its name in the figure.")] = "HeartLLM",
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
) -> None:
    """Puts the scores of frozen runs on a curve; other systems that are on it already stay."""
    from heartllm_eval import frozen
    from heartllm_eval.figures.curve_points import merge, points
    from heartllm_eval.scoring import Options

    if kind not in KINDS:
        raise UsageError(f"unknown curve {kind!r}", where="measure curve", remedy=f"Choose {' or '.join(KINDS)}.")
    placed = [(place, frozen.read(folder)) for place, folder in map(parse_place, run or [])]
    found = points(placed, system, options=Options(confidence_n, confidence))
    for score in found:
        place = "" if score.at is None else f"{score.at:g}"
        print(f"{score.system:12} {score.metric:12} {place:>10} {score.value:6.1f}")
    synthetic = any(run.about.get("synthetic") for _, run in placed)
    name = f"{kind}_synthetic.csv" if synthetic else f"{kind}.csv"
    print(f"written to {merge(output_path / name, found)}", file=sys.stderr)


def parse_place(text: str) -> tuple[float, Path]:
    """ "1000=FOLDER" -> its place and folder.

    Raises:
        UsageError: for anything else.
    """
    place, equals, folder = text.partition("=")
    try:
        value = float(place)
    except ValueError:
        value = 0.0
    if not equals or not folder or not 0 < value < float("inf"):
        raise UsageError(
            f"{text!r} is no place and folder", where="--run", remedy="Write a positive number: --run 1000=FOLDER."
        )
    return value, Path(folder)


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(curve)
