"""One run over several processes, without any message between them: they share the run's folder.

Every process plans the same run. Process 0 owns run.json; each answers the groups (questions about the same ECG) whose
number is its own modulo the count, into a file of its own (`samples.jsonl`, `samples.1.jsonl`, ...), and process 0
merges them in the order of the plan once all are answered. A run is therefore continued by any count of processes.

`--num_processes N` starts them here; `torchrun`, `accelerate launch` and `mpirun` start them elsewhere, see
`heartllm.launched`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from heartllm import locks
from heartllm.errors import DataError, HeartLLMError, UsageError
from heartllm.launched import World
from heartllm.writing import write_whole
from heartllm_eval.schema import Request

LAUNCHED = "HEARTLLM_EVAL_LAUNCHER"  # process id of the launcher, in the environment of what it started
PROGRAM = ("-m", "heartllm_eval")
POLL = 0.1  # seconds
LOCK_WAIT = 5.0  # seconds: what a killed launcher's processes may take to notice
END_WAIT = 10.0


class ProcessFailed(HeartLLMError):
    """One process of a run failed; it has said why."""

    def __init__(self, what: str, code: int, where: Path) -> None:
        super().__init__(what, where=where, remedy="Its own message is above; the same command continues the run.")
        self.exit_code = code


def share(requests: Sequence[Request], world: World) -> list[Request]:
    """The requests of this process: every `size`-th group of those about the same ECGs."""
    if world.size == 1:
        return list(requests)
    number: dict[tuple[str, ...], int] = {}
    kept = []
    for request in requests:
        key = (request.dataset, *request.record_ids) if request.record_ids else (request.id,)
        if number.setdefault(key, len(number)) % world.size == world.rank:
            kept.append(request)
    return kept


def launch(arguments: Sequence[str], count: int, output: Path, program: Sequence[str] = PROGRAM) -> None:
    """Runs `heartllm-eval ARGUMENTS` in `count` processes; if one fails, the others are ended.

    Raises:
        ProcessFailed: with the exit code of the first that failed; run.json is then marked.
    """
    threads = str(max(1, (os.cpu_count() or 1) // count))
    processes = []
    for rank in range(count):
        environment = {
            "OMP_NUM_THREADS": threads,
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            LAUNCHED: str(os.getpid()),
        }
        processes.append(subprocess.Popen([sys.executable, *program, *arguments], env=environment))
    try:
        failed = _first_failure(processes)
    except BaseException:
        _end(processes)
        raise
    if failed is None:
        return
    _end(processes)
    code = processes[failed].returncode
    what = f"process {failed} of {count} ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
    if code != UsageError.exit_code:  # wrong usage leaves a folder as it was
        _mark(output, what)
    raise ProcessFailed(what, code if code > 0 else 1, output)


def _first_failure(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    while True:
        codes = [process.poll() for process in processes]
        bad = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
        if bad:
            return bad[0]
        if all(code == 0 for code in codes):
            return None
        time.sleep(POLL)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + END_WAIT
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _mark(output: Path, message: str) -> None:
    """Process 0 was ended without having failed: its record would say "interrupted"."""
    path = output / "run.json"
    with suppress(OSError, ValueError):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("status") != "error":
            record.update(status="error", error=message)
            write_whole(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler or launcher wants this process to end. Handled as Ctrl-C is."""


@contextmanager
def ends_well() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, and the process ends when the launcher that started it is gone."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    launcher = os.environ.get(LAUNCHED)
    if launcher is not None:
        threading.Thread(target=_watch, args=(int(launcher),), daemon=True).start()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(POLL)
    os._exit(1)  # the launcher was killed; what is written is whole lines


def locked(output: Path, world: World, wait: float = LOCK_WAIT) -> AbstractContextManager[None]:
    """Holds the folder for this process; the lock goes with the process, however that ends.

    Raises:
        UsageError: if another run holds it.
    """
    path = output / (".lock" if world.leads else f".lock.{world.rank}")
    return locks.locked(path, where=f"--output_path {output}", wait=wait)


def wait_for(what: str, look: Any, output: Path, limit: float = 3600.0) -> Any:
    """Calls `look` until it gives something.

    Raises:
        DataError: if it gives nothing for `limit` seconds.
    """
    until = time.monotonic() + limit
    while (found := look()) is None:
        if time.monotonic() > until:
            raise DataError(
                f"process 0 has not {what} in {limit:.0f} s",
                where=output,
                remedy="See its messages; all processes need to see the same folder.",
            )
        time.sleep(POLL)
    return found
