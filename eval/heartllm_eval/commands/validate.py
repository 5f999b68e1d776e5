"""`heartllm-eval validate`: whether a file can be used as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heartllm.errors import DataError

EPILOG = """**Examples**

`heartllm-eval validate my_suite.toml`

`heartllm-eval validate answers.jsonl --references references.jsonl`"""


def validate(
    path: Annotated[
        Path, typer.Argument(help="A suite (.toml), or a predictions or references file (.jsonl, .json, .csv).")
    ],
    references: Annotated[
        Path | None, typer.Option("--references", "-r", help="Hold the predictions' ids against these references.")
    ] = None,
) -> None:
    """Checks a file without scoring it: exit code 0 if it can be used as it is."""
    if path.suffix == ".toml":
        from heartllm_eval.suite import read_suite

        suite = read_suite(path)
        print(f"{path}: suite {suite.name}, version {suite.version}: {suite.caption}")
        return
    from heartllm_eval import files
    from heartllm_eval.models.predictions import listed, read_predictions

    if references is None:
        requests = files.read_references(path)
        patients = {request.cluster for request in requests} - {""}
        print(f"{path}: {len(requests):,} references ({requests[0].kind}), {len(patients):,} patients")
        return
    wanted = files.read_references(references)
    file = read_predictions(path, [request.id for request in wanted])
    problems = []
    if file.missing:
        problems.append(f"{len(file.missing):,} ids have no prediction: {listed(file.missing)}")
    if file.extra:
        problems.append(f"{len(file.extra):,} ids are not among the references: {listed(file.extra)}")
    if problems:
        raise DataError(
            "; ".join(problems), where=path, remedy="Add or remove these rows; score counts missing ones as wrong."
        )
    print(f"{path}: {len(file.predictions):,} predictions, all ids match")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(validate)
