"""Carries a plan out: every row and seed, stage by stage, each a process of its own; resumable.

A job that is done has a stamp (WORK/jobs/<name>.json: when, how long, by which command) and is not done again. A job
that fails stops what needs it and nothing else. Several drivers may share a work folder: each job is locked.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heartllm.errors import HeartLLMError, UsageError
from heartllm.writing import write_whole
from heartllm_eval import provenance
from heartllm_eval.paper import stages, training_facts
from heartllm_eval.paper.plan import TRAINING_FILE
from heartllm_eval.paper.stages import Job, Setting

Say = Callable[[str], object]
_STAGES = ("tokens", "text", "forecasting", "tuning", "blind", "asking")


class RowsFailed(HeartLLMError):
    """Some rows could not be carried out; the others were."""


@dataclass
class Outcome:
    """What became of the jobs, by name."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    held_back: list[str] = field(default_factory=list)


def plan_text(setting: Setting, jobs: Sequence[Job]) -> str:
    """What would run, row by row, with the hours that are left as far as they were measured."""
    lines = [f"size {setting.size.name}: {setting.size.about}"]
    total, unknown = 0.0, []
    for row, regime, seed in setting.plan.jobs(setting.size):
        mine = [job for job in jobs if (job.row, job.regime, job.seed) == (row.name, regime.name, seed)]
        mine = [job for job in mine if job.stage not in ("front-end", "tokens") or seed == 0]
        if not mine:
            continue
        left = [job for job in mine if not is_done(setting, job)]
        hours = _hours(setting, left)
        if left and hours is None:
            unknown.append(f"{row.name}/{regime.name}")
        total += hours or 0.0
        state = "done" if not left else ", ".join(job.stage for job in left)
        told = "" if not left else f"  ~{hours:.1f} h" if hours is not None else "  hours not measured"
        lines.append(f"  {row.label}, {regime.name}, seed {seed}: {state}{told}")
    drawn = [job.name for job in jobs if job.stage == "data" and not is_done(setting, job)]
    if drawn:
        lines.insert(1, f"  to be drawn: {', '.join(drawn)}")
    texts = [job for job in jobs if job.stage == "text" and not is_done(setting, job)]
    if texts:
        hours = _hours(setting, texts)
        total += hours or 0.0
        lines.insert(
            1, f"  text models: {', '.join(job.name for job in texts)}" + (f"  ~{hours:.1f} h" if hours else "")
        )
    lines.append(f"about {total:.1f} hours of one core are left, as far as measured")
    if unknown:
        lines.append(f"not measured at this size: {', '.join(dict.fromkeys(unknown))}")
    return "\n".join(lines)


def carry_out(setting: Setting, jobs: Sequence[Job], *, workers: int = 1, say: Say = print) -> Outcome:
    """Runs what is open, in order; at most `workers` jobs side by side, each as soon as what it needs is done.

    Raises:
        RowsFailed: after everything that could be done was done, if something failed.
    """
    outcome, source = Outcome(), provenance.source()
    waiting, running = list(jobs), dict[Future[float | None], Job]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or running:
                while len(running) < workers and (job := _next(waiting, running.values(), outcome)):
                    waiting.remove(job)
                    running[pool.submit(_carry_out_one, setting, job, source, say)] = job
                for finished in wait(running, return_when=FIRST_COMPLETED).done:
                    _note(outcome, running.pop(finished), finished, say)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C has reached the commands too; they save and end
            raise
    say(
        f"{len(outcome.done)} jobs done, {len(outcome.skipped)} were done, {len(outcome.failed)} failed, "
        f"{len(outcome.held_back)} held back"
    )
    if outcome.failed:
        raise RowsFailed(
            f"{len(outcome.failed)} jobs failed ({', '.join(outcome.failed)}), and {len(outcome.held_back)} that need "
            "them were held back",
            where=setting.work / "logs",
            remedy="Read their logs; the same command goes on with what is open.",
        )
    return outcome


def _next(waiting: list[Job], running: Iterable[Job], outcome: Outcome) -> Job | None:
    """The first job whose needs are done. What needs a job that is not going to be done is held back."""
    open_names = {job.name for job in (*waiting, *running)}
    for job in list(waiting):
        if any(name in outcome.failed or name in outcome.held_back for name in job.needs):
            waiting.remove(job)
            open_names.discard(job.name)
            outcome.held_back.append(job.name)
        elif not any(name in open_names for name in job.needs):
            return job
    return None


def _carry_out_one(setting: Setting, job: Job, source: Mapping[str, Any], say: Say) -> float | None:
    """Does a job -> its seconds, 0 where it was done already, or None where another process is at it."""
    if is_done(setting, job):
        return 0.0
    with _locked(setting, job) as mine:
        if not mine:
            return None
        _prepare(setting, job)
        say(f"{job.name}: {' '.join(job.command[2:5])} ...")
        seconds = _run(setting, job)
        _finish(setting, job)
        _stamp(setting, job, seconds, source)
        return seconds


def _note(outcome: Outcome, job: Job, finished: Future[float | None], say: Say) -> None:
    """Takes down what became of a job.

    Raises:
        BaseException: what no row is to blame for, such as Ctrl-C.
    """
    error = finished.exception()
    if isinstance(error, HeartLLMError):
        outcome.failed[job.name] = str(error)
        say(f"{job.name}: FAILED. {error}")
        return
    seconds = finished.result()
    if seconds is None:
        outcome.held_back.append(job.name)
        say(f"{job.name}: another process is at it")
    elif not seconds:
        outcome.skipped.append(job.name)
    else:
        outcome.done.append(job.name)
        say(f"{job.name}: done in {seconds / 60:.1f} min")


def is_done(setting: Setting, job: Job) -> bool:
    """Whether a job was done as it would be done now.

    Raises:
        UsageError: if it was done with another recipe or other options.
    """
    stamp = _read(_stamp_path(setting, job))
    if not stamp or not job.makes.exists():
        return False
    if stamp.get("key") != job.key:
        raise UsageError(
            "was done with another recipe or other options",
            where=job.makes.parent,
            remedy=f"Choose another --work, or remove this folder and {_stamp_path(setting, job)} to do it again.",
        )
    return True


def _prepare(setting: Setting, job: Job) -> None:
    for path, text in job.files:
        stages.write_file(path, text)
    if job.row and job.stage not in ("asking", "freezing"):
        stages.write_recipe(setting, setting.plan.row(job.row), job.seed)


def _run(setting: Setting, job: Job) -> float:
    """Runs the command, its output into WORK/logs/<name>.log -> seconds.

    Raises:
        RowsFailed: if it fails or does not make what it should; with the log's last line.
    """
    log = setting.work / "logs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(job.command)}\n".encode())
        stream.flush()
        done = subprocess.run(
            job.command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=_environment(), check=False
        )
    if done.returncode == 130 or done.returncode == -2:
        raise KeyboardInterrupt
    if done.returncode or not job.makes.exists():
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        why = f"exit code {done.returncode}" if done.returncode else f"it made no {job.makes.name}"
        raise RowsFailed(f"{why}: {lines[-1][:300]}", where=log, remedy="Mend it; the same command goes on.")
    return time.monotonic() - start


def _environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ}


def _finish(setting: Setting, job: Job) -> None:
    """Beside the frozen runs of a training goes what it cost."""
    if job.stage == "freezing":
        folder = stages.checkpoint(setting, job.row, job.regime, job.seed)
        target = setting.frozen / job.row / f"seed-{job.seed}" / TRAINING_FILE.format(regime=job.regime)
        training_facts.write(training_facts.facts(folder, setting.device), target)


def _hours(setting: Setting, left: Sequence[Job]) -> float | None:
    """Hours of these jobs, as the size's stages were measured; None where they were not."""
    known = setting.size.hours
    if known is None:
        return None if left else 0.0
    each = {"freezing": 0.02, "front-end": known.frontend, **{name: getattr(known, name) for name in _STAGES}}
    return sum(each[job.stage] for job in left)


def _stamp_path(setting: Setting, job: Job) -> Path:
    return setting.work / "jobs" / f"{job.name}.json"


def _stamp(setting: Setting, job: Job, seconds: float, source: Mapping[str, Any]) -> None:
    path = _stamp_path(setting, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "finished": provenance.now(), "seconds": round(seconds, 1), "key": job.key, "command": list(job.command),
        "device": setting.device, "hardware": provenance.hardware(setting.device), "source": dict(source),
    }  # fmt: skip
    write_whole(path, json.dumps(about, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


@contextmanager
def _locked(setting: Setting, job: Job) -> Iterator[bool]:
    """Whether this process has the job for itself; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    path = setting.work / "jobs" / f"{job.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
