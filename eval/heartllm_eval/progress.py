"""What a run tells while it goes: notes and warnings on stderr, and a bar where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from heartllm.plain import plain


class Progress:
    """Verbosity 0: warnings only; 1: notes and a bar."""

    def __init__(self, verbosity: int = 1) -> None:
        self.verbosity = verbosity

    def note(self, message: str) -> None:
        """What is being done."""
        if self.verbosity > 0:
            print(plain(message), file=sys.stderr)

    def warn(self, message: str) -> None:
        """What the user should know."""
        print(f"warning: {plain(message)}", file=sys.stderr)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        """A progress bar over `total` steps; gives the function that counts one."""
        if self.verbosity == 0 or not sys.stderr.isatty():
            yield lambda: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)
