"""Machines that misbehave: memory that ends, workers that die, a second run in the folder, clocks that go backwards."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from heartllm.data.synthetic import write_site, writing
from heartllm.errors import HeartLLMError, UsageError, run_command_line
from heartllm.locks import locked
from heartllm.training.loop import LoopConfig, fit
from heartllm.training.processes import Part

# ---- memory --------------------------------------------------------------------------------------------------------


def train(folder: Path, fail: Callable[[int], None] = lambda step: None, batch: int = 8) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)

    def loss(trained: nn.Module, step: int, part: Part) -> dict[str, Tensor]:
        fail(step)
        x = torch.randn(batch, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": ((trained(x) - x[:, :3]) ** 2).mean()}

    config = LoopConfig(steps=8, learning_rate=1e-2, warmup=1, evaluate_every=2, save_seconds=0.0)
    fit(model, loss=loss, config=config, folder=folder, batch=batch, fingerprint="a run", title="tuning")
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=["Python", "torch", "GPU"],
)
def test_out_of_memory_in_one_step(tmp_path: Path, error: Exception) -> None:
    """It is told with what to set; the same command goes on from the last save and ends as if nothing had been."""

    def fail(step: int) -> None:
        if step == 5:
            raise error

    with pytest.raises(HeartLLMError, match=r"not enough memory for 8 .*accumulate = 2") as caught:
        train(tmp_path / "run", fail)
    assert "tuning, step 5" in str(caught.value)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 5
    assert torch.equal(train(tmp_path / "run"), train(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: .*No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), "runs/x: .*Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: .*Permission denied"),
        (OSError("60000 requested and 8192 written"), "60000 requested"),
    ],
    ids=["memory", "GPU", "full", "read-only", "forbidden", "unnamed"],
)
def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, told: str
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command_line(command)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert "the same command continues" in said
    assert re.search(told, said)


# ---- workers -------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, workers: int, mp_context: object) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *how: object) -> None: ...

        def submit(self, *what: Any) -> Future[int]:
            done: Future[int] = Future()
            done.set_exception(BrokenProcessPool("a process in the pool was terminated abruptly"))
            return done

    with monkeypatch.context() as patch:
        patch.setattr(writing, "CHUNK", 1)
        patch.setattr(writing, "ProcessPoolExecutor", Pool)
        with pytest.raises(HeartLLMError, match=r"synthetic-a: a worker process has ended.*--workers"):
            write_site("a", tmp_path, recordings=2, seed=1, workers=2)
        assert (write_site("a", tmp_path, recordings=2, seed=1, workers=1) / "complete.json").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one; what its fellows have finished stays."""
    monkeypatch.setattr(writing, "CHUNK", 10)
    parts, over = tmp_path / "begun" / "synthetic-a" / "parts", threading.Event()

    def kill() -> None:
        while not over.is_set():
            if [*parts.glob("0*.json")] and (children := multiprocessing.active_children()):
                os.kill(children[0].pid or 0, signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(HeartLLMError, match="a worker process has ended"):
            write_site("a", tmp_path / "begun", recordings=100, seed=1, workers=2)
    finally:
        over.set()
        killer.join()
    assert [*parts.glob("0*.json")]
    one, two = (
        write_site("a", tmp_path / name, recordings=100, seed=1, workers=1) for name in ("begun", "undisturbed")
    )
    assert (one / "complete.json").read_bytes() == (two / "complete.json").read_bytes()


# ---- two runs in one folder ----------------------------------------------------------------------------------------


def test_two_runs_draw_one_site(tmp_path: Path) -> None:
    parts = tmp_path / "synthetic-a" / "parts"
    parts.mkdir(parents=True)
    with locked(parts / ".lock", where=tmp_path), pytest.raises(UsageError, match="another run is writing there"):
        write_site("a", tmp_path, recordings=1, seed=1, workers=1)
    assert not (parts / "plan.json").exists()
    write_site("a", tmp_path, recordings=1, seed=1, workers=1)


def test_two_runs_train_in_one_folder(tmp_path: Path) -> None:
    """Before anything is read or trained; a finished folder needs no lock, and may lie where none can be written."""
    from heartllm.manifests import write_manifest
    from heartllm.pipeline import tokenizer_stage
    from heartllm.recipe import load_recipe

    recipe, told = load_recipe("tiny"), list[str]()
    with locked(tmp_path / ".lock", where=tmp_path), pytest.raises(UsageError, match="another run is writing there"):
        tokenizer_stage(recipe, [], tmp_path)
    (tmp_path / "run").mkdir()  # a kill came between the manifest and this folder's end
    (tmp_path / "run" / "state.pt").write_text("")
    write_manifest(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["files"] == {}
    with locked(tmp_path / ".lock", where=tmp_path):
        tokenizer_stage(recipe, [], tmp_path, say=told.append)
    assert told == [f"{tmp_path}: the front-end is there already"]
    assert not (tmp_path / "run").exists()


# ---- the clock -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the wall clock is an hour before the last one."""
    from datetime import datetime, timedelta, timezone

    from heartllm_eval import provenance

    hours = iter(range(1_000_000))
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def now() -> str:
        return (begin - timedelta(hours=next(hours))).isoformat(timespec="seconds")

    monkeypatch.setattr(time, "time", lambda: begin.timestamp() - 3600 * next(hours))
    monkeypatch.setattr(provenance, "now", now)


def test_a_training_under_a_clock_that_goes_backwards(tmp_path: Path, clock: None) -> None:
    def stop(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop)
    for path in (tmp_path / "run").iterdir():  # files of tomorrow
        os.utime(path, (4e9, 4e9))
    assert torch.equal(train(tmp_path / "run"), train(tmp_path / "whole"))
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


def test_an_evaluation_under_a_clock_that_goes_backwards(
    tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heartllm_eval.planning import RunSpec
    from heartllm_eval.runner import run
    from heartllm_eval.scoring import Options
    from heartllm_eval.suite import Suite
    from heartllm_eval.testing import Echo, invented_requests

    for place in ("heartllm_eval.planning.build_requests", "heartllm_eval.models.base.build_requests"):
        monkeypatch.setattr(place, lambda suite, workspace, split=None: invented_requests(split or suite.split))
    suite = Suite(version=1, name="invented_qa", title="T", kind="qa", dataset="ptbxl", synthetic=True)
    spec = RunSpec("echo", (suite,), tmp_path / "run", options=Options(resamples=100), verbosity=0, command=("x",))
    with pytest.raises(RuntimeError):
        run(spec, lambda system, context: Echo(crash_after=50))
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (4e9, 4e9))
    again = Echo()
    record = run(spec, lambda system, context: again)
    assert len(again.asked) == 144 - 50
    whole = run(replace(spec, output=tmp_path / "whole"), lambda system, context: Echo())
    assert record.figures == whole.figures
    assert all(seconds >= 0 for seconds in record.timing.values())
