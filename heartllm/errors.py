"""Errors that a user can act on.

Each message names the place (file, field, option), says what is wrong, and ends with the remedy. The command line
prints that one line and exits with the error's `exit_code`: 2 for wrong usage, 1 for wrong data. A traceback is
therefore always a defect of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from heartllm.plain import plain_line


class HeartLLMError(Exception):
    """Base of every error that HeartLLM raises on purpose.

    Args:
        what: what is wrong, in one clause and without a final period.
        remedy: what the user can do about it.
        where: the file, field or option concerned, if there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, remedy: str, where: str | Path | None = None) -> None:
        self.what, self.remedy, self.where = what, remedy, where
        place = f"{where}: " if where is not None else ""
        super().__init__(f"{place}{what}. {remedy}")


class UsageError(HeartLLMError):
    """The command, its options or a configuration file are wrong."""

    exit_code = 2


class DataError(HeartLLMError):
    """A recording, table, question file or predictions file is wrong."""


class CheckpointError(DataError):
    """A checkpoint or token store is incomplete, altered, or does not fit what it is used with."""


def missing_package(error: ModuleNotFoundError) -> HeartLLMError | None:
    """What to tell somebody whose install lacks a package; None where a module of ours is missing, a defect."""
    package = (error.name or "").split(".")[0]
    if package in ("heartllm", "heartllm_eval", ""):
        return None
    return HeartLLMError(
        f"the package {package!r} is not installed", remedy="Install it with: pip install 'heartllm[all]'"
    )


def run_command_line(app: Callable[[], object]) -> None:
    """Runs a command-line program and turns our errors into one line and an exit code.

    Exit codes: 0 done, 1 wrong data, 2 wrong usage, 130 interrupted (a long stage that is started again continues).
    """
    try:
        app()
    except HeartLLMError as error:
        print(f"error: {plain_line(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(missing.exit_code)
    except KeyboardInterrupt:
        print("interrupted. What was done is kept; the same command continues it.", file=sys.stderr)
        sys.exit(130)
