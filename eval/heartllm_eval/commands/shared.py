"""What several commands do alike."""

from __future__ import annotations

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


def show(record: RunRecord, format: str = "text") -> None:
    """Prints the tables of a record on standard output."""
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
