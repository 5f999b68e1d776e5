"""What several commands do alike."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from heartllm.errors import DataError, UsageError
from heartllm.plain import plain
from heartllm_eval.options import console

if TYPE_CHECKING:
    from heartllm.data.records import Entry
    from heartllm.ecg.recording import Recording
    from heartllm_eval.requests import Workspace
    from heartllm_eval.schema import RunRecord
    from heartllm_eval.suite import Suite

Prepared = TypeVar("Prepared")


def split_names(values: list[str] | None) -> list[str]:
    """The names of an option that takes several: repeated, or separated by commas."""
    return [part.strip() for value in values or [] for part in value.split(",") if part.strip()]


def chosen_suites(tasks: list[str], include: list[Path] | None) -> list[Suite]:
    """The suites of `--tasks`.

    Raises:
        UsageError: for none, or an unknown one.
    """
    from heartllm_eval.suite import select

    names = split_names(tasks)
    if not names:
        raise UsageError("no task", where="--tasks", remedy="Name one; heartllm-eval ls lists them.")
    return select(names, include or [])


def checkpoint_arguments(text: str, **others: str) -> dict[str, str]:
    """`--model_args` of a checkpoint that is measured: "checkpoint", "threads", and others with their defaults.

    Raises:
        UsageError: without a checkpoint, for other arguments, and for threads that are no whole number.
    """
    from heartllm_eval.models.base import parse_model_args

    given = {**others, "threads": "1", **parse_model_args(text)}
    if (
        not given.get("checkpoint")
        or given.keys() - {"checkpoint", "threads", *others}
        or not given["threads"].isdigit()
    ):
        raise UsageError(
            f"{text!r} is not understood",
            where="--model_args",
            remedy=f"Write checkpoint=DIR, and if wanted {''.join(f',{name}=...' for name in others)},threads=N.",
        )
    return given


def draw_recordings(
    workspace: Workspace,
    dataset: str,
    split: str,
    most: int,
    seed: int,
    prepare: Callable[[Entry, Recording], Prepared],
    wanted: Callable[[Entry], bool] = lambda entry: True,
) -> list[Prepared]:
    """Up to `most` recordings, drawn with `seed` and prepared; unusable ones are left out with a warning."""
    entries = sorted(filter(wanted, workspace.entries(dataset, split)), key=lambda entry: entry.record_id)
    random.Random(seed).shuffle(entries)
    found: list[Prepared] = []
    for entry in entries:
        if len(found) == most:
            break
        try:
            found.append(prepare(entry, workspace.read(dataset, entry.record_id)))
        except DataError as error:
            print(f"warning: left out: {plain(str(error))}", file=sys.stderr)
    return found


def check_format(name: str) -> str:
    """The name, if it is one of `--format`.

    Raises:
        UsageError: otherwise.
    """
    from heartllm_eval.rendering import FORMATS

    if name not in FORMATS:
        choices = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UsageError(f"unknown format {name!r}", where="--format", remedy=f"Choose {choices}.")
    return name


def show(records: RunRecord | Mapping[str, RunRecord], format: str = "text") -> None:
    """Prints the tables of a record, or of several by name, on standard output."""
    from heartllm_eval import tables
    from heartllm_eval.rendering import show_all
    from heartllm_eval.schema import RunRecord

    chosen = {"heartllm": records} if isinstance(records, RunRecord) else records
    if format != "text":
        print(tables.render(chosen, format), end="")
        return
    for name, record in chosen.items():
        if len(chosen) > 1:
            print(f"== {name}\n")
        if record.status == "predicted":
            print("answers written; not scored")
        show_all(tables.build(record), console())
