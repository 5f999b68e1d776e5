"""`heartllm-eval measure shift`: what noise, gain, rates, exchanged and lost leads cost a model, as curves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heartllm_eval.commands.measure import DataOut
from heartllm_eval.commands.run import BatchSize, Cache, Control, Device, Limit, Model, ModelArgs, Seed, Tasks
from heartllm_eval.commands.shared import chosen_suites
from heartllm_eval.options import Confidence, DataRoot, Include, Resamples, Verbosity

EPILOG = """**Examples**

`heartllm-eval measure shift -M heartllm -a checkpoint=DIR -t ptbxl_qa -L 600 --runs runs/ood -o reports/figures/data`

`heartllm-eval measure shift -M heartllm -a checkpoint=DIR -t ptbxl_qa --curve noise=muscle:20dB,10dB,0dB --curve
swap=LA-RA,V1-V2 --runs runs/ood -o data`

A run a point is kept below `--runs`; the same command goes on where it was stopped. Kinds and values are those of
`heartllm-eval run --perturb`."""


def shift(
    model: Model,
    tasks: Tasks,
    output_path: DataOut,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the runs behind the points, one folder a point.")],
    model_args: ModelArgs = "",
    curve: Annotated[
        list[str] | None,
        typer.Option("--curve", metavar="KIND=V,V,...", help="Repeatable; the default covers every kind."),
    ] = None,
    system: Annotated[str, typer.Option("--system", help="Its name in the figure.")] = "HeartLLM",
    include_path: Include = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    batch_size: BatchSize = "16",
    device: Device = "cpu",
    seed: Seed = 0,
    control: Control = "majority",
    use_cache: Cache = None,
    confidence_n: Resamples = 2_000,
    confidence: Confidence = 0.95,
    verbosity: Verbosity = 0,
) -> None:
    """Runs a suite under every perturbation and pairs each run with the one without: the data of the OOD figure."""
    from heartllm_eval import ood, runner
    from heartllm_eval.commands.run import _batch_size
    from heartllm_eval.models.base import check_arguments, parse_model_args
    from heartllm_eval.planning import RunSpec
    from heartllm_eval.scoring import Options
    from heartllm_eval.systems import parse_controls

    given = parse_model_args(model_args)
    check_arguments(model, given)
    size, auto = _batch_size(batch_size, None, device)
    spec = RunSpec(
        model=model,
        suites=tuple(chosen_suites(tasks, include_path)),
        output=runs,
        model_args=given,
        data_roots=tuple(data_root or ()),
        limit=limit,
        seed=seed,
        batch_size=size,
        auto_batch=auto,
        device=device,
        cache=use_cache,
        control_names=parse_controls(control or ""),
        options=Options(confidence_n, confidence),
        verbosity=verbosity,
        command=("heartllm-eval", *sys.argv[1:]),
    )
    measured = ood.measure(
        spec, curve or ood.CURVES, system, run=runner.run, say=lambda text: print(text, file=sys.stderr)
    )
    print(f"{'':44}score                 change from clean")
    for name, (score, low, high) in measured.levels.items():
        print(f"{name:44}{_interval(score, low, high)}")
    for point in measured.points:
        if point.slice == "all":
            change = _interval(point.change, point.change_low, point.change_high, sign="+")
            print(f"{point.curve + ' ' + point.value:44}{_interval(point.score, point.low, point.high):22}{change}")
    print(f"written to {ood.write(measured, output_path / 'ood')}", file=sys.stderr)


def _interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.1f}" + ("" if low is None or high is None else f" [{low:{sign}.1f}, {high:{sign}.1f}]")


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(shift)
