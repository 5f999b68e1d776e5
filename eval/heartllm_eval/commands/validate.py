"""`heartllm-eval validate`: whether a file can be used as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartllm.errors import DataError, UsageError
from heartllm.plain import plain
from heartllm_eval.commands.shared import chosen_suites
from heartllm_eval.options import DataRoot, Include

if TYPE_CHECKING:
    from heartllm_eval.schema import Request

EPILOG = """**Examples**

`heartllm-eval validate my_suite.toml`

`heartllm-eval validate answers.jsonl --references references.jsonl`

`heartllm-eval validate answers.jsonl -t ptbxl_qa --data_root DIR`

`heartllm-eval validate reports/reference/checkpoint`"""


def validate(
    path: Annotated[
        Path,
        typer.Argument(
            help="A suite (.toml), a predictions or references file (.jsonl, .json, .csv), a checkpoint or run folder."
        ),
    ],
    references: Annotated[
        Path | None, typer.Option("--references", "-r", help="Hold the predictions' ids against these references.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", "-t", help="Hold the predictions' ids against this suite.")
    ] = None,
    include_path: Include = None,
    data_root: DataRoot = None,
    limit: Annotated[
        str | None, typer.Option("--limit", "-L", help="The --limit that the suite was asked with.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The --seed that the suite was asked with.")] = 0,
) -> None:
    """Checks a file or folder without scoring it: exit code 0 if it can be used as it is."""
    if references is not None and tasks:
        raise UsageError(
            "references are needed from one place", where="--references", remedy="Give --references or --tasks."
        )
    if path.is_dir():
        _folder(path)
    elif path.suffix == ".toml":
        from heartllm_eval.suite import read_suite

        suite = read_suite(path)
        print(plain(f"{path}: suite {suite.name}, version {suite.version}: {suite.caption}"))
    elif references is None and not tasks:
        from heartllm_eval.references import read_references

        if _answers_only(path):
            raise UsageError(
                "predictions are held against references",
                where=path,
                remedy="Add --references FILE or --tasks SUITE.",
            )
        requests = read_references(path)
        patients = {request.cluster for request in requests} - {""}
        print(f"{path}: {len(requests):,} references ({requests[0].kind}), {len(patients):,} patients")
    else:
        from heartllm_eval.commands.score import suite_references
        from heartllm_eval.references import read_references

        if references is not None:
            wanted = read_references(references)
        else:
            wanted = suite_references(chosen_suites(tasks or [], include_path), data_root or [], limit, seed)[1]
        _predictions(path, wanted)


def _folder(path: Path) -> None:
    """A checkpoint (its files against their hashes) or a run (its samples against its requests)."""
    if (path / "run.json").is_file():
        from heartllm_eval.files import check_run

        print(f"{path}: a whole run of {check_run(path):,} answers, status and requests as recorded")
        return
    from heartllm.checkpoint import verify  # needs the model extra

    print(f"{path}: checkpoint {verify(path)[:16]}, every file as its manifest says")


def _answers_only(path: Path) -> bool:
    """Whether the first row is a prediction and no reference."""
    from heartllm_eval.references import REFERENCE_KEYS
    from heartllm_eval.row_files import rows

    first: dict[str, object] = next((row for _, row in rows(path)), {})
    return "prediction" in first and not any(name in first for name in REFERENCE_KEYS)


def _predictions(path: Path, wanted: Sequence[Request]) -> None:
    from heartllm_eval.models.predictions import listed, read_predictions

    file = read_predictions(path, [request.id for request in wanted])
    problems = []
    if file.missing:
        problems.append(f"{len(file.missing):,} ids have no prediction: {listed(file.missing)}")
    if file.extra:
        problems.append(
            f"{file.extra_count:,} ids are not among the references: {listed(file.extra, file.extra_count)}"
        )
    if problems:
        raise DataError(
            "; ".join(problems), where=path, remedy="Add or remove these rows; score counts missing ones as wrong."
        )
    print(f"{path}: {len(file.predictions):,} predictions, all ids match")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(validate)
