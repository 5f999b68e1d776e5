"""One process at a time in a folder. A lock goes with the process that holds it, however that ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heartllm.errors import UsageError

POLL = 0.1  # seconds


@contextmanager
def locked(path: Path, *, where: str | Path, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock file `path`; waits up to `wait` seconds for it. Without effect on file systems without locks.

    Raises:
        UsageError: if another process holds it; `where` is the folder or option that the message names.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.open("ab") as stream:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    remedy = "Wait for it, or choose another folder."
                    raise UsageError("another run is writing there", where=where, remedy=remedy) from None
                time.sleep(POLL)
            except OSError:  # a file system without locks
                break
        yield
