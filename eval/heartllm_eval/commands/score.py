"""`heartllm-eval score`: a predictions file, or a run folder once more, without any model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartllm.errors import UsageError
from heartllm_eval.commands.shared import check_format, chosen_suites, show, split_names
from heartllm_eval.options import Confidence, DataRoot, Format, Include, Output, Resamples, Verbosity

if TYPE_CHECKING:
    from heartllm_eval.suite import Suite

EPILOG = """**Examples**

`heartllm-eval score answers.jsonl --references references.jsonl`

`heartllm-eval score answers.csv -t ptbxl_qa --data_root DIR` (the references are the suite's)

`heartllm-eval score runs/mine` (a run folder, once more, without the model)

A prediction is `{"id": "17", "prediction": "yes"}`; several answers are written `"a; b"` or as a list. A reference is
`{"id": "17", "answer": ["yes"]}` or `{"id": "17", "report": "sinus rhythm"}`, if possible with `patient_id`,
`question_type`, `attribute_type` and `options`. CSV needs a header with the same names; lists are written `yes; no`."""


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
    format: Format = "text",
    verbosity: Verbosity = 1,
) -> None:
    """Scores predictions that any program made. Needs no torch and no model."""
    from heartllm_eval import files
    from heartllm_eval.metrics import check_metric
    from heartllm_eval.models.predictions import file_hash
    from heartllm_eval.planning import left_as_it_was
    from heartllm_eval.references import read_references, task_name
    from heartllm_eval.scoring import Options

    check_format(format)
    if kind not in (None, "qa", "report"):
        raise UsageError(f"unknown kind {kind!r}", where="--kind", remedy="Choose qa or report.")
    names = split_names(metrics)
    for name in names:
        check_metric(name, where="--metrics")
    options = Options(confidence_n, confidence)
    if predictions.is_dir():
        if references or tasks:
            if not (predictions / "run.json").is_file():
                raise UsageError(
                    "this is a folder, and not a run's", where=predictions, remedy="Name a .jsonl, .json or .csv file."
                )
            raise UsageError(
                "a run folder brings its own references",
                where=predictions,
                remedy="Leave out --references and --tasks.",
            )
        show(files.rescore(predictions, options=options, metrics=names, verbosity=verbosity), format)
        return
    if (references is None) == (not tasks):
        raise UsageError(
            "references are needed from one place",
            where="--references",
            remedy="Give --references FILE or --tasks SUITE.",
        )
    about: dict[str, Any] = {}
    if references is not None:
        requests = read_references(references, kind)  # type: ignore[arg-type]
        name, sources = task_name(references), {"references": file_hash(references)}
    else:
        name, requests, about = suite_references(chosen_suites(tasks or [], include_path), data_root or [], limit, seed)
        sources, names = {}, names or about.pop("metrics")
    if names:
        about["primary"] = names[0]
    with left_as_it_was(output_path):
        record = files.score_predictions(
            predictions,
            requests,
            name=name,
            metrics=names,
            missing=missing,
            options=options,
            sources=sources,
            about=about,
            output=output_path,
            verbosity=verbosity,
        )
    if output_path is not None:
        files.write(record, output_path)
        files.write_answers(output_path, name, requests, predictions)
    show(record, format)


def suite_references(
    suites: list[Suite], data_roots: Sequence[Path], limit: str | None, seed: int
) -> tuple[str, Any, dict[str, Any]]:
    """A suite's name, its requests, and what a record says of it.

    Raises:
        UsageError: for more than one suite.
    """
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


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(score)
