"""`heartllm-eval run`: asks a model and scores its answers; `--dry-run` only says what it would do."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from heartllm.errors import HeartLLMError
from heartllm_eval.commands.shared import check_format, chosen_suites, show
from heartllm_eval.options import Confidence, DataRoot, Format, Include, Output, Resamples, Verbosity

EPILOG = """**Examples**

`heartllm-eval run -M majority -t ptbxl_qa --data_root DIR`

`heartllm-eval run -M heartllm -a checkpoint=DIR -t synthetic -L 0.1 -o runs/quick`

`heartllm-eval run -M predictions -a path=answers.jsonl -t ptbxl_qa -o runs/theirs`

`heartllm-eval run -M gold -t ptbxl_qa --dry-run -o plan` (writes what would be asked to plan/ptbxl_qa/requests.jsonl)

The same command again continues a run that was stopped."""


class Interrupted(HeartLLMError):
    """Ctrl-C; what was predicted is kept."""

    exit_code = 130


def run(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-M", help="Kind of model: heartllm, predictions, majority, constant, gold, or a plug-in's."
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
    batch_size: Annotated[int, typer.Option("--batch_size", "-b", min=1, help="Answers generated at once.")] = 16,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, ...")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", help="Of --limit and of the shuffled control.")] = 0,
    controls: Annotated[
        bool | None,
        typer.Option("--controls/--no_controls", help="Evaluate controls beside the model (default: for heartllm)."),
    ] = None,
    blind: Annotated[
        Path | None,
        typer.Option("--blind", help="Checkpoint trained without ECGs (default: blind/ in the checkpoint)."),
    ] = None,
    use_cache: Annotated[
        Path | None, typer.Option("--use_cache", help="Folder that keeps ECG codes between runs.")
    ] = None,
    predict_only: Annotated[
        bool, typer.Option("--predict_only", "-x", help="Stop before scoring; `score` does it later.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Show what would run; with -o, write what would be asked.")
    ] = False,
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
    format: Format = "text",
    verbosity: Verbosity = 1,
) -> None:
    """Asks a model, scores its answers, and writes run.json, samples.jsonl and results.md."""
    from heartllm_eval.models.base import adapter_class, parse_model_args
    from heartllm_eval.planning import RunSpec
    from heartllm_eval.scoring import Options

    check_format(format)
    suites = chosen_suites(tasks, include_path)
    adapter_class(model)  # a misspelt kind is told before any data is read
    spec = RunSpec(
        model=model,
        suites=tuple(suites),
        output=output_path or Path("runs") / f"{model}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}",
        model_args=parse_model_args(model_args),
        data_roots=tuple(data_root or ()),
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        device=device,
        cache=use_cache,
        controls=model == "heartllm" if controls is None else controls,
        blind=blind,
        predict_only=predict_only,
        options=Options(confidence_n, confidence),
        verbosity=verbosity,
        command=("heartllm-eval", *sys.argv[1:]),
    )
    if dry_run:
        _dry_run(spec, write=output_path is not None)
        return
    from heartllm_eval import runner

    try:
        record = runner.run(spec)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted", where=spec.output, remedy="What was done is kept; the same command continues it."
        ) from None
    show(record, format)
    print(f"written to {spec.output}", file=sys.stderr)


def _dry_run(spec: Any, *, write: bool) -> None:
    from heartllm_eval.planning import plan, systems_of, write_requests
    from heartllm_eval.progress import Progress
    from heartllm_eval.requests import Workspace

    planned = plan(spec, Workspace(spec.data_roots))
    systems = systems_of(spec, Progress(spec.verbosity).warn)
    for suite in spec.suites:
        requests = planned[suite.name]
        recordings = len({record for request in requests for record in request.record_ids})
        patients = len({request.cluster for request in requests})
        print(f"{suite.name}: {suite.caption}")
        print(
            f"  {len(requests):,} requests on {recordings:,} recordings of {patients:,} patients, split {suite.split}"
        )
        print(f"  metrics: {', '.join(suite.metric_names)} (primary: {suite.primary_metric})")
    print(f"systems: {', '.join(f'{system.name} ({system.kind})' for system in systems)}")
    if write:
        write_requests(spec.output, planned)
        print(f"requests written to {spec.output}")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(run)
