"""The one optimisation loop that all three training stages share.

The batch of a step is a function of (seed, step) alone, so a run that is stopped and started again takes up the same
sequence: nothing of a data loader needs saving. State goes to disk by temporary file and rename, every few minutes and
on Ctrl-C. A batch may be computed in parts, by one process or by several (`heartllm.training.processes`); process 0
writes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from heartllm.config import dumps, to_dict
from heartllm.errors import CheckpointError, DataError, out_of_memory
from heartllm.training import sharding
from heartllm.training.memory import too_large
from heartllm.training.processes import Part, any_of, from_first, last_of, leads, parts, replicated, total, wait, world
from heartllm.training.sharding import Shards, cut_like, optimiser_from_disk, optimiser_to_disk, whole
from heartllm.untrusted import read_object
from heartllm.writing import write_atomically, write_whole

Loss = Callable[[nn.Module, int, Part], Mapping[str, Tensor]]


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast.

    Attributes:
        steps: optimiser steps.
        learning_rate: AdamW's peak; warm-up is linear over `warmup` steps, then cosine to a twentieth.
        weight_decay: on matrices only.
        clip: largest gradient norm.
        evaluate_every: steps between validations; 0 for never.
        patience: validations without a gain before stopping early; 0 for never.
        save_seconds: seconds between saves of the state.
        seed: of everything drawn.
        threads: CPU threads.
        device: where to train, "cuda" for one; the CPU where None. `heartllm ... --device` sets it.
        accumulate: parts in which a step's batch is computed, over all processes: less memory, the same result. It is
            raised to a multiple of the number of processes.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    evaluate_every: int = 200
    patience: int = 0
    save_seconds: float = 120.0
    seed: int = 0
    threads: int = 1
    device: str | None = None
    accumulate: int = 1


def settings_of(recipe: Any) -> str:
    """The TOML text of a recipe as far as results depend on it, for fingerprints: an unfinished run may go on in other
    parts."""

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: kept(value) if isinstance(value, dict) else value
            for name, value in values.items()
            if name not in ("accumulate", "checkpointing")
        }

    return dumps(kept(to_dict(recipe)))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _save(state: Mapping[str, Any], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        # All that torch says of a full disk is where in its own source it noticed.
        raise OSError(None, "not all of it could be written; is the disk full?", str(path)) from None


def rate_at(step: int, config: LoopConfig) -> float:
    """The learning rate of a step: linear warm-up, cosine to 5 %."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class _Run:
    """A run's state beside the model's weights, and its way to disk and back.

    `state.pt` holds plain containers and tensors only, so that it loads with `weights_only`.
    """

    def __init__(
        self, model: nn.Module, config: LoopConfig, folder: Path, fingerprint: str, batch: int, title: str
    ) -> None:
        self.model, self.config, self.fingerprint = model, config, fingerprint
        self.batch, self.title = batch, title
        self.parts = parts(config.accumulate, batch, title)
        self.state_path, self.log_path = folder / "state.pt", folder / "log.jsonl"
        self.shards = Shards(model) if world().size > 1 and sharding.wanted() else None
        self.optimiser = torch.optim.AdamW(
            _groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.step, self.best, self.bad = 0, math.inf, 0
        self.best_weights: dict[str, Tensor] | None = None
        self.running: dict[str, float] = {}
        self.log: list[dict[str, Any]] = []
        self.settled = True  # false while an optimiser step has changed some weights and not yet all
        self.kept = {name for name, p in model.named_parameters() if p.requires_grad} | {
            name for name, _ in model.named_buffers()
        }
        self.seconds, self.start = 0.0, time.perf_counter()
        if self.state_path.exists():
            self._load()
        self._reopen_log()
        step = from_first(lambda: self.step)
        if any(any_of(self.step != step)):
            raise CheckpointError(
                "the processes see different states",
                where=folder,
                remedy="Give a folder that all machines see, the same one.",
            )
        self.trained = replicated(model)

    def _load(self) -> None:
        state = read_object(self.state_path, mmap=False)
        if not isinstance(state, dict) or state.get("fingerprint") != self.fingerprint:
            raise CheckpointError(
                "holds an unfinished run with other settings or data",
                where=self.state_path.parent,
                remedy="Give another --out, or delete this folder.",
            )
        self.load_weights(state["model"])
        optimiser_from_disk(self.optimiser, state["optimiser"])
        self.step, self.best, self.bad = state["step"], state["best"], state["bad"]
        self.best_weights, self.seconds = state["best_weights"], state["seconds"]
        self.running = state.get("running", {})
        self.log = state.get("log") or self._written_log()  # states of older versions have none
        if "random" in state:  # dropout draws from it
            torch.set_rng_state(state["random"])

    def _reopen_log(self) -> None:
        """Drops the lines after the last save, which are told again."""
        if self.log_path.exists() and leads():
            write_whole(self.log_path, "".join(json.dumps(entry) + "\n" for entry in self.log))

    def _written_log(self) -> list[dict[str, Any]]:
        """The lines of the log up to the last save."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        return [entry for entry in entries if entry["step"] <= self.step]

    def elapsed(self) -> float:
        """Seconds of work, over all starts."""
        return self.seconds + time.perf_counter() - self.start

    def weights(self) -> dict[str, Tensor]:
        """A copy of what trains, and of the buffers; all processes have to ask."""
        return {name: whole(v).detach().clone() for name, v in self.model.state_dict().items() if name in self.kept}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes what `weights` gave."""
        own = self.model.state_dict()
        self.model.load_state_dict({name: cut_like(v, own[name]) for name, v in weights.items()}, strict=False)

    def save(self) -> None:
        """Writes `state.pt`, in process 0; all have to ask."""
        state = {
            "fingerprint": self.fingerprint,
            "model": self.weights(),
            "optimiser": optimiser_to_disk(self.optimiser),
            "step": self.step,
            "best": self.best,
            "bad": self.bad,
            "best_weights": self.best_weights,
            "seconds": self.elapsed(),
            "running": self.running,
            "log": self.log,
            "random": torch.get_rng_state(),
        }
        if leads():
            write_atomically(self.state_path, lambda path: _save(state, path))

    def advance(self, loss: Loss) -> None:
        """One optimiser step."""
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.step, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._backward(loss)
        if not math.isfinite(losses["loss"]):
            raise DataError(
                f"the loss is not finite at step {self.step}",
                where=self.state_path.parent,
                remedy="Lower the learning rate, or look for NaN in the data.",
            )
        nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], self.config.clip)
        self.settled = False
        self.optimiser.step()
        self.step += 1
        self.settled = True
        for name, now in losses.items():
            self.running[name] = 0.98 * self.running.get(name, now) + 0.02 * now

    def _backward(self, loss: Loss) -> dict[str, float]:
        """Leaves the gradients of the step's batch in the parameters; returns its losses."""
        sums: dict[str, float] = {}
        size = world().size
        try:
            for part in self.parts:
                part.seed(self.config.seed, self.step)
                with last_of(self.trained, part, self.parts):
                    losses = loss(self.trained, self.step, part)
                    # DDP takes the mean over processes, and parts are to be summed.
                    (losses["loss"] * size if size > 1 else losses["loss"]).backward()
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise too_large(self.batch, self.parts[0].count, f"{self.title}, step {self.step}") from None
        return total(sums)

    def due(self) -> bool:
        """Whether this step's line is to be written and is not there yet."""
        every = self.config.evaluate_every
        if not every or not self.step or (self.log and self.log[-1]["step"] == self.step):
            return False
        return self.step % every == 0 or self.step == self.config.steps

    def report(self, evaluate: Callable[[], Mapping[str, float]] | None, monitor: str) -> None:
        """Validates, and writes this step's line of the log."""
        entry: dict[str, Any] = {"step": self.step, "seconds": round(self.elapsed(), 1)}
        entry |= {name: round(value, 5) for name, value in self.running.items()}
        if evaluate is not None:
            self.model.eval()
            with torch.no_grad():
                found = evaluate()
            figures = from_first(lambda: dict(found))  # for all to stop early, or none
            entry |= {f"valid_{name}": round(float(value), 5) for name, value in figures.items()}
            value = float(figures[monitor])
            self.best, self.bad = (value, 0) if value < self.best else (self.best, self.bad + 1)
            if self.bad == 0 and self.config.patience:
                self.best_weights = self.weights()
        self.log.append(entry)
        if not leads():
            return
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def finished(self) -> bool:
        """Whether all steps are done, or validation has not gained for `patience` times."""
        return self.step >= self.config.steps or bool(self.config.patience and self.bad >= self.config.patience)


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Holds back the first Ctrl-C, but not a second, and gives a function that tells whether there was one.

    A step is so never cut in half: Python would else raise KeyboardInterrupt between two weights of the optimiser.
    """
    pressed = False

    def note(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed and world().size == 1:  # launchers pass a terminal's Ctrl-C on, so that it comes twice
            raise KeyboardInterrupt
        pressed = True

    owned = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if owned:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        if owned:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def fit(
    model: nn.Module,
    *,
    loss: Loss,
    config: LoopConfig,
    folder: Path,
    batch: int = 1,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    monitor: str = "loss",
    fingerprint: str = "",
    title: str = "training",
) -> list[dict[str, Any]]:
    """Trains `model` in place, on `config.device`, and returns the log, one dictionary a line of `folder/log.jsonl`.

    The state stays in `folder`, and the same call gives the same at once: remove it once the model is kept elsewhere.

    Args:
        loss: (model, step, part of the step's batch) -> named losses, whose sums over parts are those of the batch; the
            one called "loss" is minimised. It calls the model that it is given, which may exchange gradients.
        batch: rows of a batch, where its loss can be had in parts; 1 where it cannot.
        evaluate: -> named figures; `monitor` names the one that early stopping minimises. The best weights are kept
            when patience is set.
        fingerprint: of everything the run depends on; an interrupted run continues only under the same one.

    Raises:
        CheckpointError: if `folder` holds the state of a different run.
        DataError: if the loss is no longer finite; the last saved state stays.
        HeartLLMError: if memory does not suffice, with what to set.
        UsageError: for more parts than rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    if config.device:
        model.to(config.device)
    run = _Run(model, config, folder, fingerprint, batch, title)
    saved = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=not (os.isatty(2) and leads()))
    with bar as progress, deferred_interrupt() as interrupted:
        task = progress.add_task(title, total=config.steps, completed=run.step)
        try:
            while True:
                if run.due():
                    run.report(evaluate, monitor)
                stop, save = any_of(interrupted(), leads() and time.perf_counter() - saved > config.save_seconds)
                if stop:
                    raise KeyboardInterrupt
                if run.finished():
                    run.save()  # what follows may be killed as well; then nothing of this is done again
                    break
                if save:
                    run.save()
                    saved = time.perf_counter()
                run.advance(loss)
                progress.update(task, completed=run.step, description=f"{title} {run.running['loss']:.4f}")
        except KeyboardInterrupt:
            if run.settled:
                run.save()
            raise
    if run.best_weights is not None:
        run.load_weights(run.best_weights)
    model.eval()
    if run.shards is not None:
        run.shards.join()
    if config.device:
        model.cpu()
    wait()
    return run.log
