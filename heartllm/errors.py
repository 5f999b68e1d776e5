"""Errors that a user can act on.

Each message names the place (file, field, option), says what is wrong, and ends with the remedy. The command line
prints that one line and exits with the error's `exit_code`: 2 for wrong usage, 1 for wrong data. A traceback is
therefore always a defect of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from heartllm.plain import plain_line, shortened

LONGEST = 1200  # characters of what is wrong, and of a remedy: both may quote a file


class HeartLLMError(Exception):
    """Base of every error that HeartLLM raises on purpose.

    Args:
        what: what is wrong, in one clause and without a final period.
        remedy: what the user can do about it.
        where: the file, field or option concerned, if there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, remedy: str, where: str | Path | None = None) -> None:
        what, remedy = shortened(what, LONGEST), shortened(remedy, LONGEST)
        self.what, self.remedy, self.where = what, remedy, where
        place = f"{where}: " if where is not None else ""
        super().__init__(f"{place}{what}. {remedy}")

    def without_folder(self) -> str:
        """The message with the file's name alone: in MIMIC's layout a recording's folders are its patient's number."""
        place = "" if self.where is None else f"{str(self.where).rpartition('/')[2]}: "
        return f"{place}{self.what}. {self.remedy}"


_Error = TypeVar("_Error", bound=HeartLLMError)
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
_SMALLER = "Take a smaller batch or fewer --workers; what was done is kept, and the same command continues it."


class UsageError(HeartLLMError):
    """The command, its options or a configuration file are wrong."""

    exit_code = 2


class DataError(HeartLLMError):
    """A recording, table, question file or predictions file is wrong."""


class CheckpointError(DataError):
    """A checkpoint or token store is incomplete, altered, or does not fit what it is used with."""


def absent(error: _Error) -> _Error:
    """The error, as one of usage: a path that is not there was named wrongly, whatever should have been in it.

    So both command lines end with 2 for a file that does not exist, and with 1 for one that is wrong.
    """
    error.exit_code = UsageError.exit_code
    return error


@contextmanager
def told_of(place: str | Path) -> Iterator[None]:
    """Puts a file or folder before the place of an error of ours that comes from inside, also where it has none."""
    try:
        yield
    except HeartLLMError as error:
        where = str(place) if error.where is None else f"{place}: {error.where}"
        HeartLLMError.__init__(error, error.what, remedy=error.remedy, where=where)
        raise


def missing_package(error: ModuleNotFoundError) -> HeartLLMError | None:
    """What to tell somebody whose install lacks a package; None where a module of ours is missing, a defect."""
    package = (error.name or "").split(".")[0]
    if package in ("heartllm", "heartllm_eval", ""):
        return None
    return HeartLLMError(
        f"the package {package!r} is not installed", remedy="Install it with: pip install 'heartllm[all]'"
    )


def refused(error: OSError, where: str | Path | None = None) -> DataError:
    """What to tell where the system refused to read or write; `where` if it does not name a file."""
    reason = " ".join((error.strerror or str(error)).split())
    return DataError(
        f"the system refused to read or write ({reason})",
        where=os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else where,
        remedy="Mend that (space, permissions); the same command continues.",
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether torch, a library below it, or Python found no memory, on a GPU or a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in told for sign in _NO_MEMORY)


def _end_quietly() -> None:
    """Ends as a program does whose output nobody reads any more: as if by SIGPIPE, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try to flush once more, and complain
    sys.exit(141)


def run_command_line(app: Callable[[], object]) -> None:
    """Runs a command-line program and turns our errors into one line and an exit code.

    Exit codes: 0 done, 1 wrong data, 2 wrong usage, 130 interrupted (a long stage that is started again continues),
    141 the reader of a pipe has gone (`heartllm-eval ls | head -1`), as other programs end then.
    """
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # what is still to be written would be noise at exit
    except BrokenPipeError:
        _end_quietly()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer ends with 1 there
            _end_quietly()
        raise
    except HeartLLMError as error:
        print(f"error: {plain_line(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(missing.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: not enough memory. {_SMALLER}", file=sys.stderr)
        sys.exit(HeartLLMError.exit_code)
    except OSError as error:
        print(f"error: {plain_line(str(refused(error)))}", file=sys.stderr)
        sys.exit(HeartLLMError.exit_code)
    except KeyboardInterrupt:
        print("interrupted. What was done is kept; the same command continues it.", file=sys.stderr)
        sys.exit(130)
