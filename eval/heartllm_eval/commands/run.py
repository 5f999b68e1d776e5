"""`heartllm-eval run`: asks a model and scores its answers; `--dry-run` only says what it would do."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartllm.ecg.perturb_kinds import KINDS
from heartllm.errors import HeartLLMError, UsageError
from heartllm_eval.commands.shared import check_format, chosen_suites, show
from heartllm_eval.options import Confidence, DataRoot, Format, Include, Output, Resamples, Verbosity
from heartllm_eval.processes import LAUNCHED

if TYPE_CHECKING:
    from heartllm_eval.planning import RunSpec

EPILOG = """**Examples**

`heartllm-eval run -M majority -t ptbxl_qa --data_root DIR`

`heartllm-eval run -M heartllm -a checkpoint=DIR -t synthetic -L 0.1 -o runs/quick`

`heartllm-eval run -M predictions -a path=answers.jsonl -t ptbxl_qa --control all -o runs/theirs`

`heartllm-eval run -M hf -a model=DIR -t ptbxl_qa -L 200 --controls` (any text LLM: it reads the ECG's measurements)

`heartllm-eval run -M openai -a base_url=http://127.0.0.1:8000/v1,model=NAME,image=true -t ptbxl_qa -L 200`
(a request that fails is sent again up to 6 times in about a minute; `retries=1,first_wait=0.5,timeout=20` shortens it)

`heartllm-eval run -M gold -t ptbxl_qa --dry-run -o plan` (writes what would be asked to plan/ptbxl_qa/requests.jsonl)

`heartllm-eval run -M heartllm -a checkpoint=DIR -t ptbxl_qa -o runs/mine --num_processes 2`

`heartllm-eval run -M heartllm -a checkpoint=DIR -t ptbxl_qa --perturb noise=muscle:10dB --perturb swap=LA-RA`

The same command again continues a run that was stopped, by any number of processes.

**Perturbations** (`--perturb KIND=VALUE`)

""" + "\n\n".join(f"`{kind}`: {text}" for kind, text in KINDS.items())


KEPT = "What was done is kept; the same command continues it."


class Interrupted(HeartLLMError):
    """Ctrl-C; what was predicted is kept."""

    exit_code = 130


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-M",
        help="Kind of model: heartllm, authors, hf, openai, predictions, a control (majority, constant, retrieval, "
        "gold), or a plug-in's.",
    ),
]
Tasks = Annotated[list[str], typer.Option("--tasks", "-t", help="Suites or tags, separated by commas; see `ls`.")]
ModelArgs = Annotated[str, typer.Option("--model_args", "-a", help="Its arguments: k=v,k=v.")]
Limit = Annotated[
    str | None,
    typer.Option("--limit", "-L", help="A number of requests (200) or a share (0.1) of each suite, drawn by type."),
]
BatchSize = Annotated[
    str, typer.Option("--batch_size", "-b", help="Answers generated at once, or auto: as many as the memory holds.")
]
LargestBatch = Annotated[int | None, typer.Option("--max_batch_size", min=1, help="Where --batch_size auto begins.")]
Processes = Annotated[
    int, typer.Option("--num_processes", min=1, help="Processes that share the work (torchrun does as well).")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, ...")]
Seed = Annotated[int, typer.Option("--seed", help="Of --limit, of --perturb and of the shuffled control.")]
Controls = Annotated[
    bool | None,
    typer.Option("--controls/--no_controls", help="Evaluate controls beside the model (default: for heartllm)."),
]
Control = Annotated[
    str | None,
    typer.Option(
        "--control", help="Exactly these: majority, constant, retrieval, blind, shuffled, gold; or all, none."
    ),
]
Blind = Annotated[
    Path | None, typer.Option("--blind", help="Checkpoint trained without ECGs (default: blind/ in the checkpoint).")
]
Perturb = Annotated[
    list[str] | None,
    typer.Option(
        "--perturb",
        metavar="KIND=VALUE",
        help=f"Shift the ECGs that are asked about; repeatable, in this order. Kinds: {', '.join(KINDS)}; see below.",
    ),
]
Cache = Annotated[
    Path | None, typer.Option("--use_cache", help="Folder that keeps ECG codes and answers between runs.")
]
PredictOnly = Annotated[bool, typer.Option("--predict_only", "-x", help="Stop before scoring; `score` does it later.")]
DryRun = Annotated[bool, typer.Option("--dry_run", help="Show what would run; with -o, write what would be asked.")]
Probe = Annotated[
    int, typer.Option("--probe", min=0, help="Requests that --dry-run answers to estimate the time; 0: none.")
]
WriteOut = Annotated[bool, typer.Option("--write_out", "-w", help="Show the prompts: the first of each question type.")]


def run(
    model: Model,
    tasks: Tasks,
    model_args: ModelArgs = "",
    include_path: Include = None,
    data_root: DataRoot = None,
    output_path: Output = None,
    limit: Limit = None,
    perturb: Perturb = None,
    batch_size: BatchSize = "16",
    max_batch_size: LargestBatch = None,
    num_processes: Processes = 1,
    device: Device = "cpu",
    seed: Seed = 0,
    controls: Controls = None,
    control: Control = None,
    blind: Blind = None,
    use_cache: Cache = None,
    predict_only: PredictOnly = False,
    dry_run: DryRun = False,
    probe: Probe = 8,
    write_out: WriteOut = False,
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
    format: Format = "text",
    verbosity: Verbosity = 1,
) -> None:
    """Asks a model, scores its answers, and writes run.json, samples.jsonl and results.md."""
    from heartllm.launched import left_alone, world_from_environment
    from heartllm_eval.models.base import check_arguments, parse_model_args
    from heartllm_eval.planning import RunSpec
    from heartllm_eval.progress import Progress
    from heartllm_eval.scoring import Options
    from heartllm_eval.systems import parse_controls

    check_format(format)
    suites = chosen_suites(tasks, include_path)
    given = parse_model_args(model_args)
    check_arguments(model, given)  # a misspelt kind or argument is told before anything is read or written
    size, auto = _batch_size(batch_size, max_batch_size, device)
    world = world_from_environment()
    if num_processes == 1 and left_alone():
        Progress(verbosity).warn(
            "accelerate launch --cpu has started one process only; give it --multi_gpu in place of --cpu (which starts "
            "several on a CPU, too), or give run --num_processes N"
        )
    if world.size > 1 and output_path is None:
        raise UsageError("several processes need one folder", where="--output_path", remedy="Name it.")
    spec = RunSpec(
        model=model,
        suites=tuple(suites),
        output=output_path or Path("runs") / f"{model}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}",
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
        perturb=_perturbations(perturb or [], model),
        predict_only=predict_only,
        options=Options(confidence_n, confidence),
        verbosity=verbosity,
        command=("heartllm-eval", *sys.argv[1:]),
    )
    if dry_run or write_out:
        from heartllm_eval.commands.preview import preview

        preview(spec, probe=probe if dry_run else 0, prompts=write_out, write=output_path is not None)
    elif num_processes > 1 and LAUNCHED not in os.environ:
        if world.size > 1:
            raise UsageError("started by two launchers", where="--num_processes", remedy="Leave it out.")
        _launch(num_processes, spec.output, output_path)
    else:
        _run_here(spec, format)


def _run_here(spec: RunSpec, format: str) -> None:
    """Runs in this process and, if it leads, prints the tables."""
    from heartllm_eval import runner
    from heartllm_eval.processes import ends_well

    try:
        with ends_well():
            record = runner.run(spec)
    except KeyboardInterrupt:
        raise Interrupted("interrupted", where=spec.output, remedy=KEPT) from None
    if spec.world.leads:
        show(record, format)
        print(f"written to {spec.output}", file=sys.stderr)


def _perturbations(texts: list[str], model: str) -> tuple[str, ...]:
    """The canonical texts of `--perturb`.

    Raises:
        UsageError: for an unknown one, or with answers that were given to other ECGs.
    """
    from heartllm_eval.shift import Shift

    if texts and model == "predictions":
        raise UsageError(
            "answers from a file were given already", where="--perturb", remedy="Perturb where they are made."
        )
    return Shift.of(texts).texts


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
