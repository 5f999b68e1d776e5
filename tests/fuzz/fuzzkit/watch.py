"""One case under watch: what it raises, opens, writes and starts, how long it takes, how much memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from heartllm.errors import HeartLLMError
from heartllm.plain import plain_line

LIMIT = 5.0  # seconds
LONGEST = 3_000  # characters of a message that is to fit a terminal
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_NEVER = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "os.fork", "pty.spawn"}


class Hang(BaseException):
    """The alarm rang. No `except Exception` holds it."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        result: "read", "refused", or what is wrong: "unhandled", "hang", "outside", "message", "valid".
        told: the message, or the traceback.
        seconds: wall time. megabytes: the process's peak so far.
    """

    result: str
    told: str
    seconds: float
    megabytes: float

    @property
    def fault(self) -> bool:
        """Whether something is to be mended."""
        return self.result not in ("read", "refused")


class Watch:
    """Looks after the cases of a process, which lie below `work`; `work`/outside is not theirs, unless `elsewhere`."""

    def __init__(self, work: Path, *, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        self.work, self.outside = os.path.realpath(work), os.path.realpath(work / "outside")
        self.seen: list[str] = []
        self.on = False
        signal.signal(signal.SIGALRM, self._ring)
        sys.addaudithook(self._hear)

    @staticmethod
    def _ring(number: int, frame: FrameType | None) -> None:
        raise Hang("".join(traceback.format_stack(frame)[-6:]))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in _NEVER:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" or event in _CHANGES:
            path = arguments[0]
            if not isinstance(path, str | bytes | os.PathLike):
                return
            real = os.path.realpath(os.fsdecode(path))
            flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
            changes = event != "open" or flags & _WRITES
            if (changes and real != os.devnull) or (real.startswith(self.outside) and not self.elsewhere):
                self.seen.append(f"{event} {real:.200} {flags}")

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        self.on = True
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.on = False

    def run(self, read: Callable[[], object], names: tuple[str, ...], *, must_read: bool) -> Outcome:
        """Runs `read`; a refusal must name one of `names` and be short."""
        self.seen.clear()
        started = time.monotonic()
        result, told = "read", ""
        try:
            with warnings.catch_warnings(), self._alarm():
                warnings.simplefilter("error")
                for harmless in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning):
                    warnings.simplefilter("ignore", harmless)
                read()
        except HeartLLMError as error:
            result, told = "refused", str(error)
            if not any(name in told for name in names):
                result = "message"
                told = f"names no file: {told[:500]}\n{traceback.format_exc(limit=-6)[-3000:]}"
            elif len(told) > LONGEST:
                result, told = (
                    "message",
                    f"{len(told)} characters: {told[:500]}\n{traceback.format_exc(limit=-6)[-3000:]}",
                )
            else:
                plain_line(told).encode("utf-8")
        except Hang as hang:
            result, told = "hang", str(hang)
        except BaseException:
            result, told = "unhandled", traceback.format_exc(limit=-12)[-6000:]
        seconds = time.monotonic() - started
        if seconds > LIMIT and result in ("read", "refused"):
            result = "hang"
        if self.seen:
            result, told = "outside", "\n".join(self.seen)
        if must_read and result == "refused":
            result = "valid"
        return Outcome(result, told, seconds, peak())


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
