"""`heartllm-eval run`: asks a model and scores its answers; `--dry-run` only says what it would do."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from heartllm.errors import HeartLLMError, UsageError
from heartllm_eval.commands.shared import check_format, chosen_suites, show
from heartllm_eval.options import Confidence, DataRoot, Format, Include, Output, Resamples, Verbosity

EPILOG = """**Examples**

`heartllm-eval run -M majority -t ptbxl_qa --data_root DIR`

`heartllm-eval run -M heartllm -a checkpoint=DIR -t synthetic -L 0.1 -o runs/quick`

`heartllm-eval run -M predictions -a path=answers.jsonl -t ptbxl_qa --control all -o runs/theirs`

`heartllm-eval run -M hf -a model=DIR -t ptbxl_qa -L 200 --controls` (any text LLM: it reads the ECG's measurements)

`heartllm-eval run -M openai -a base_url=http://127.0.0.1:8000/v1,model=NAME,image=true -t ptbxl_qa -L 200`

`heartllm-eval run -M gold -t ptbxl_qa --dry-run -o plan` (writes what would be asked to plan/ptbxl_qa/requests.jsonl)

`heartllm-eval run -M heartllm -a checkpoint=DIR -t ptbxl_qa -o runs/mine --num_processes 2`

The same command again continues a run that was stopped, by any number of processes."""


KEPT = "What was done is kept; the same command continues it."


class Interrupted(HeartLLMError):
    """Ctrl-C; what was predicted is kept."""

    exit_code = 130


def run(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-M",
            help="Kind of model: heartllm, authors, hf, openai, predictions, a control (majority, constant, retrieval, "
            "gold), or a plug-in's.",
        ),
    ],
    tasks: Annotated[list[str], typer.Option("--tasks", "-t", help="Suites or tags, separated by commas; see `ls`.")],
    model_args: Annotated[str, typer.Option("--model_args", "-a", help="Its arguments: k=v,k=v.")] = "",
    include_path: Include = None,
    data_root: DataRoot = None,
    output_path: Output = None,
    limit: Annotated[
        str | None,
        typer.Option("--limit", "-L", help="A number of requests (200) or a share (0.1) of each suite, drawn by type."),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option("--batch_size", "-b", help="Answers generated at once, or auto: as many as the memory holds."),
    ] = "16",
    max_batch_size: Annotated[
        int | None, typer.Option("--max_batch_size", min=1, help="Where --batch_size auto begins.")
    ] = None,
    num_processes: Annotated[
        int, typer.Option("--num_processes", min=1, help="Processes that share the work (torchrun does as well).")
    ] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, ...")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", help="Of --limit and of the shuffled control.")] = 0,
    controls: Annotated[
        bool | None,
        typer.Option("--controls/--no_controls", help="Evaluate controls beside the model (default: for heartllm)."),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            "--control", help="Exactly these: majority, constant, retrieval, blind, shuffled, gold; or all, none."
        ),
    ] = None,
    blind: Annotated[
        Path | None,
        typer.Option("--blind", help="Checkpoint trained without ECGs (default: blind/ in the checkpoint)."),
    ] = None,
    use_cache: Annotated[
        Path | None, typer.Option("--use_cache", help="Folder that keeps ECG codes and answers between runs.")
    ] = None,
    predict_only: Annotated[
        bool, typer.Option("--predict_only", "-x", help="Stop before scoring; `score` does it later.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Show what would run; with -o, write what would be asked.")
    ] = False,
    probe: Annotated[
        int, typer.Option("--probe", min=0, help="Requests that --dry-run answers to estimate the time; 0: none.")
    ] = 8,
    write_out: Annotated[
        bool, typer.Option("--write_out", "-w", help="Show the prompts: the first of each question type.")
    ] = False,
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
    format: Format = "text",
    verbosity: Verbosity = 1,
) -> None:
    """Asks a model, scores its answers, and writes run.json, samples.jsonl and results.md."""
    from heartllm_eval.models.base import check_arguments, parse_model_args
    from heartllm_eval.planning import RunSpec
    from heartllm_eval.processes import LAUNCHED, ends_well, world_from_environment
    from heartllm_eval.scoring import Options
    from heartllm_eval.systems import parse_controls

    check_format(format)
    suites = chosen_suites(tasks, include_path)
    given = parse_model_args(model_args)
    check_arguments(model, given)  # a misspelt kind or argument is told before anything is read or written
    size, auto = _batch_size(batch_size, max_batch_size, device)
    world = world_from_environment()
    if world.size > 1 and output_path is None:
        raise UsageError("several processes need one folder", where="--output_path", remedy="Name it.")
    output = output_path or Path("runs") / f"{model}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    spec = RunSpec(
        model=model,
        suites=tuple(suites),
        output=output,
        model_args=given,
        data_roots=tuple(data_root or ()),
        limit=limit,
        seed=seed,
        batch_size=size,
        auto_batch=auto,
        world=world,
        device=f"cuda:{world.local_rank}" if device == "cuda" and world.size > 1 else device,
        cache=use_cache,
        controls=model == "heartllm" if controls is None else controls,
        control_names=None if control is None else parse_controls(control),
        blind=blind,
        predict_only=predict_only,
        options=Options(confidence_n, confidence),
        verbosity=verbosity,
        command=("heartllm-eval", *sys.argv[1:]),
    )
    if dry_run or write_out:
        from heartllm_eval.commands.preview import preview

        preview(spec, probe=probe if dry_run else 0, prompts=write_out, write=output_path is not None)
        return
    if num_processes > 1 and LAUNCHED not in os.environ:
        if world.size > 1:
            raise UsageError("started by two launchers", where="--num_processes", remedy="Leave it out.")
        _launch(num_processes, output, output_path)
        return
    from heartllm_eval import runner

    try:
        with ends_well():
            record = runner.run(spec)
    except KeyboardInterrupt:
        raise Interrupted("interrupted", where=spec.output, remedy=KEPT) from None
    if world.leads:
        show(record, format)
        print(f"written to {spec.output}", file=sys.stderr)


def _batch_size(text: str, largest: int | None, device: str) -> tuple[int, bool]:
    """The size to begin with, and whether it may shrink.

    Raises:
        UsageError: for anything but a whole number and "auto".
    """
    from heartllm_eval.models.batching import AUTO_ON_CPU, AUTO_ON_GPU

    if text == "auto":
        return largest or (AUTO_ON_CPU if device == "cpu" else AUTO_ON_GPU), True
    if not text.isdigit() or int(text) < 1:
        raise UsageError(
            f"{text!r} is no batch size", where="--batch_size", remedy="Write a number such as 16, or auto."
        )
    return min(int(text), largest or int(text)), False


def _launch(count: int, output: Path, given: Path | None) -> None:
    """Starts this command again, in several processes that write to the same folder, also where none was given."""
    from heartllm_eval.planning import open_folder
    from heartllm_eval.processes import ends_well, launch

    open_folder(output)
    named = [] if given else ["--output_path", str(output)]
    try:
        with ends_well():
            launch([*sys.argv[1:], *named], count, output)
    except KeyboardInterrupt:
        raise Interrupted("interrupted", where=output, remedy=KEPT) from None


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(run)
