"""What several commands do alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from heartllm.errors import UsageError
from heartllm_eval.options import console

if TYPE_CHECKING:
    from heartllm_eval.schema import RunRecord
    from heartllm_eval.suite import Suite


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
