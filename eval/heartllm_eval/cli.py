"""`heartllm-eval`: evaluate ECG language models, or score what they said."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartllm.errors import HeartLLMError, UsageError, run_command_line
from heartllm_eval import checks
from heartllm_eval.options import Confidence, DataRoot, Include, Output, Resamples, Verbosity, console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heartllm_eval.schema import RunRecord
    from heartllm_eval.suite import Suite

# "--model-args" and "--model_args" are the same option.
CONTEXT = {"token_normalize_func": lambda token: token.replace("-", "_"), "help_option_names": ["--help", "-h"]}

app = typer.Typer(
    context_settings=CONTEXT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Evaluates ECG language models: questions, reports, controls, intervals.

**Score a file of answers** (no torch needed): `heartllm-eval score answers.jsonl --references references.jsonl`

**Evaluate a checkpoint with its controls:** `heartllm-eval run -M heartllm -a checkpoint=DIR -t ptbxl_qa -o runs/mine`

**See what can be asked:** `heartllm-eval ls`

Options may be written with underscores or dashes.""",
)


class Interrupted(HeartLLMError):
    """Ctrl-C; what was predicted is kept."""

    exit_code = 130


@app.command(
    epilog="""**Examples**

`heartllm-eval run -M majority -t ptbxl_qa --data_root DIR`

`heartllm-eval run -M heartllm -a checkpoint=DIR -t synthetic -L 0.1 -o runs/quick`

`heartllm-eval run -M predictions -a path=answers.jsonl -t ptbxl_qa -o runs/theirs`

`heartllm-eval run -M gold -t ptbxl_qa --dry-run -o plan` (writes what would be asked to plan/ptbxl_qa/requests.jsonl)

The same command again continues a run that was stopped."""
)
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
    verbosity: Verbosity = 1,
) -> None:
    """Asks a model, scores its answers, and writes run.json, samples.jsonl and results.md."""
    from heartllm_eval.models.base import adapter_class, parse_model_args
    from heartllm_eval.planning import RunSpec
    from heartllm_eval.scoring import Options

    suites = _suites(tasks, include_path)
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
    _show(record)
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


@app.command(
    epilog="""**Examples**

`heartllm-eval score answers.jsonl --references references.jsonl`

`heartllm-eval score answers.csv -t ptbxl_qa --data_root DIR` (the references are the suite's)

`heartllm-eval score runs/mine` (a run folder, once more, without the model)

A prediction is `{"id": "17", "prediction": "yes"}`; several answers are written `"a; b"` or as a list. A reference is
`{"id": "17", "answer": ["yes"]}` or `{"id": "17", "report": "sinus rhythm"}`, if possible with `patient_id`,
`question_type`, `attribute_type` and `options`. CSV needs a header with the same names."""
)
def score(
    predictions: Annotated[Path, typer.Argument(help="Predictions (.jsonl, .json, .csv), or a run folder.")],
    references: Annotated[
        Path | None, typer.Option("--references", "-r", help="References (.jsonl, .json, .csv).")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", "-t", help="A suite whose references to use instead.")
    ] = None,
    include_path: Include = None,
    data_root: DataRoot = None,
    limit: Annotated[
        str | None, typer.Option("--limit", "-L", help="The --limit that the suite was asked with.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The --seed that the suite was asked with.")] = 0,
    kind: Annotated[str | None, typer.Option("--kind", help="qa or report, if the references do not tell.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", help="Metrics, separated by commas; the first is the primary one.")
    ] = None,
    missing: Annotated[
        str, typer.Option("--missing", help="wrong: missing ids count as wrong; error: refuse them.")
    ] = "wrong",
    output_path: Output = None,
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
    format: Annotated[str, typer.Option("--format", help="text, markdown or json.")] = "text",
    verbosity: Verbosity = 1,
) -> None:
    """Scores predictions that any program made. Needs no torch and no model."""
    from heartllm_eval import files
    from heartllm_eval.metrics import check_metric
    from heartllm_eval.models.predictions import file_hash
    from heartllm_eval.scoring import Options

    if format not in ("text", "markdown", "json"):
        raise UsageError(f"unknown format {format!r}", where="--format", remedy="Choose text, markdown or json.")
    if kind not in (None, "qa", "report"):
        raise UsageError(f"unknown kind {kind!r}", where="--kind", remedy="Choose qa or report.")
    names = _split(metrics)
    for name in names:
        check_metric(name, where="--metrics")
    options = Options(confidence_n, confidence)
    if predictions.is_dir():
        if references or tasks:
            raise UsageError(
                "a run folder brings its own references",
                where=predictions,
                remedy="Leave out --references and --tasks.",
            )
        _show(files.rescore(predictions, options=options, metrics=names, verbosity=verbosity), format)
        return
    if (references is None) == (not tasks):
        raise UsageError(
            "references are needed from one place",
            where="--references",
            remedy="Give --references FILE or --tasks SUITE.",
        )
    about: dict[str, Any] = {}
    if references is not None:
        requests = files.read_references(references, kind)  # type: ignore[arg-type]
        name, sources = references.stem, {"references": file_hash(references)}
    else:
        name, requests, about = _suite_references(_suites(tasks or [], include_path), data_root or [], limit, seed)
        sources, names = {}, names or about.pop("metrics")
    if names:
        about["primary"] = names[0]
    record = files.score_predictions(
        predictions,
        requests,
        name=name,
        metrics=names,
        missing=missing,
        options=options,
        sources=sources,
        about=about,
        verbosity=verbosity,
    )
    if output_path is not None:
        files.write(record, output_path)
    _show(record, format)


def _suite_references(
    suites: list[Suite], data_roots: Sequence[Path], limit: str | None, seed: int
) -> tuple[str, Any, dict[str, Any]]:
    from heartllm_eval.planning import RunSpec, plan
    from heartllm_eval.requests import Workspace

    if len(suites) != 1:
        names = ", ".join(suite.name for suite in suites)
        raise UsageError(f"one suite at a time, not {names}", where="--tasks", remedy="Name one suite.")
    suite = suites[0]
    planned = plan(
        RunSpec("gold", (suite,), Path(), data_roots=tuple(data_roots), limit=limit, seed=seed), Workspace(data_roots)
    )
    about = {
        "title": suite.caption,
        "slices": suite.slices,
        "synthetic": suite.synthetic,
        "metrics": suite.metric_names,
        "limit": limit,
    }
    return suite.name, planned[suite.name], about


def _split(values: list[str] | None) -> list[str]:
    return [part.strip() for value in values or [] for part in value.split(",") if part.strip()]


def _suites(tasks: list[str], include: list[Path] | None) -> list[Suite]:
    from heartllm_eval.suite import select

    names = _split(tasks)
    if not names:
        raise UsageError("no task", where="--tasks", remedy="Name one; heartllm-eval ls lists them.")
    return select(names, include or [])


def _show(record: RunRecord, format: str = "text") -> None:
    from heartllm_eval import tables
    from heartllm_eval.schema import dumps

    if format == "json":
        print(dumps(record, indent=1))
    elif record.status == "predicted":
        print("answers written; not scored")
    elif format == "markdown":
        print("\n".join(table.markdown() + "\n" for table in tables.build(record)))
    else:
        for table in tables.build(record):
            table.show(console())


def main() -> None:
    """The console script."""
    run_command_line(app)


checks.register(app)
