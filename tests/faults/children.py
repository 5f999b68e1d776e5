"""Commands as processes that can be killed at once and often: forked from one that has imported everything already.

A fresh Python needs seconds to import the model stack, and 300 kills would need half an hour for that alone. A fork
starts within milliseconds, and what is killed is a real process in the middle of the command's own `main`.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

# What the commands import on use.
IMPORTED = (
    "torch", "peft", "pydantic", "sacrebleu", "rouge_score.rouge_scorer",
    "transformers.models.llama.modeling_llama", "transformers.tokenization_utils_fast", "tokenizers.trainers",
    "safetensors.torch", "scipy.signal", "wfdb", "nltk.stem.porter", "matplotlib.pyplot",
    "heartllm.cli", "heartllm.pipeline", "heartllm.data.synthetic.writing", "heartllm.training.frontends",
    "heartllm.training.language", "heartllm.responder", "heartllm_eval.cli", "heartllm_eval.runner",
    "heartllm_eval.models.heartllm", "heartllm_eval.models.controls", "heartllm_eval.paper.report",
    "heartllm_eval.comparison.pairs", "heartllm_eval.comparison.tables", "heartllm_eval.frozen",
    "heartllm_eval.page.assemble", "heartllm_eval.page.contents", "heartllm_eval.page.gather",
)  # fmt: skip
PROGRAMS = {"heartllm": "heartllm.cli", "heartllm-eval": "heartllm_eval.cli"}
TRACEBACK = 70  # exit code of a command that ended in one
WRITING = os.O_WRONLY | os.O_RDWR
PATIENCE = 300.0  # seconds that a tiny command may take

When = Literal["never", "time", "before", "after"]


@dataclass(frozen=True)
class Moment:
    """When to kill: `at` seconds after the start, or just before or after the `at`-th change of a folder's content."""

    when: When = "never"
    at: float = 0.0


def draw(generator: random.Random, seconds: float, changes: int) -> Moment:
    """A moment of a command that takes `seconds` and makes `changes`, or a little later: then it ends undisturbed."""
    when: When = generator.choice(["time", "time", "before", "after"])
    if when == "time":
        return Moment(when, generator.uniform(0.0, 1.2 * seconds))
    return Moment(when, generator.randint(1, max(2, round(1.2 * changes))))


@dataclass(frozen=True)
class Ended:
    """How a command ended: `code` is None where it was killed. `changes` were made by one that was not."""

    code: int | None
    seconds: float
    changes: int
    output: str


def warm(names: Iterable[str] = IMPORTED) -> None:
    """Imports in this process what its children would; nothing is computed, so that a fork is safe."""
    for name in names:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def run(command: Sequence[str], folder: Path, log: Path, moment: Moment = Moment()) -> Ended:
    """Runs a command of ours in a process of its own and kills it, and what it has started, at the moment.

    Args:
        folder: whose changes are counted. log: where its output goes.
    """
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _become(command, folder, log, moment, writing)
    os.close(writing)
    with suppress(OSError):
        os.setpgid(child, child)  # both do it: whoever comes first
    told = _wait(reading, moment, started)
    if told is None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    seconds = time.monotonic() - started
    output = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if os.WIFSIGNALED(status):
        return Ended(None, seconds, 0, output)
    return Ended(os.WEXITSTATUS(status), seconds, told or 0, output)


def _wait(reading: int, moment: Moment, started: float) -> int | None:
    """The number of changes that a command tells when it ends, or None once it is to be killed (or has done it)."""
    until = started + (moment.at if moment.when == "time" else PATIENCE)
    ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
    if not ready and moment.when != "time":
        raise TimeoutError(f"a command has not ended within {PATIENCE:.0f} s")
    told = os.read(reading, 64) if ready else b""
    return int(told) if told and not told.startswith(b"!") else None


def _become(command: Sequence[str], folder: Path, log: Path, moment: Moment, tell: int) -> NoReturn:
    """The child: never returns."""
    code = TRACEBACK
    try:
        os.setpgid(0, 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
        changes = _count_changes(folder, moment, tell)
        sys.argv = list(command)
        try:
            importlib.import_module(PROGRAMS[command[0]]).main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        os.write(tell, str(changes()).encode())
    except BaseException:
        traceback.print_exc()
        with suppress(BaseException):
            sys.stderr.flush()
            os.write(tell, b"0")
    os._exit(code)


def _count_changes(folder: Path, moment: Moment, tell: int) -> Callable[[], int]:
    """Counts what changes the names or the beginning of files below `folder`, and brings the kill at the moment."""
    count, root = 0, str(folder)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if not path.startswith(root) and (not path or os.path.isabs(path)):
            return  # a relative one is of a folder that is being removed
        count += 1
        if count == moment.at and moment.when == "before":
            os.killpg(0, signal.SIGKILL)
        if count == moment.at and moment.when == "after":
            os.write(tell, b"!")

    sys.addaudithook(note)
    return lambda: count


def apart(function: Callable[[], Any]) -> Any:
    """What `function` gives (anything that JSON can hold), computed in a fork: this process stays as it was."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8") as stream:
                json.dump(function(), stream)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        text = stream.read()
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("looking at what a command left failed; see above")
    return json.loads(text)
