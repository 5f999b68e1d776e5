"""The one optimisation loop that all three training stages share.

The batch of a step is a function of (seed, step) alone, so a run that is stopped and started again takes up the same
sequence: nothing of a data loader needs saving. State goes to disk by temporary file and rename, every few minutes and
on Ctrl-C.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from heartllm.errors import CheckpointError


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


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary name, syncs it and renames it: a reader sees the old or the new, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def rate_at(step: int, config: LoopConfig) -> float:
    """The learning rate of a step: linear warm-up, cosine to 5 %."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def fit(
    model: nn.Module,
    *,
    loss: Callable[[int], Mapping[str, Tensor]],
    config: LoopConfig,
    folder: Path,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    monitor: str = "loss",
    fingerprint: str = "",
    title: str = "training",
) -> list[dict[str, Any]]:
    """Trains `model` in place and returns the log, one dictionary a line of `folder/log.jsonl`.

    Args:
        loss: step -> named losses; the one called "loss" is minimised.
        evaluate: -> named figures; `monitor` names the one that early stopping minimises. The best weights are kept
            when patience is set.
        fingerprint: of everything the run depends on; an interrupted run continues only under the same one.

    Raises:
        CheckpointError: if `folder` holds the state of a different run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    optimiser = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98))
    state_path, log_path = folder / "state.pt", folder / "log.jsonl"
    step, best, bad, best_weights, seconds = 0, math.inf, 0, None, 0.0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location="cpu")
        if state["fingerprint"] != fingerprint:
            raise CheckpointError(
                "holds an unfinished run with other settings or data",
                where=folder,
                remedy="Give another --out, or delete this folder.",
            )
        model.load_state_dict(state["model"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        step, best, bad, best_weights, seconds = (state[k] for k in ("step", "best", "bad", "best_weights", "seconds"))
    log: list[dict[str, Any]] = []
    if log_path.exists():  # lines after the last save are told again
        lines = log_path.read_text(encoding="utf-8").splitlines()
        log = [entry for entry in (json.loads(line) for line in lines if line.endswith("}")) if entry["step"] <= step]
        log_path.write_text("".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8")

    trained = {name for name, p in model.named_parameters() if p.requires_grad} | {
        name for name, _ in model.named_buffers()
    }

    def weights() -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in model.state_dict().items() if name in trained}

    def save() -> None:
        state = {"fingerprint": fingerprint, "model": weights(), "optimiser": optimiser.state_dict(), "step": step}
        state |= {
            "best": best,
            "bad": bad,
            "best_weights": best_weights,
            "seconds": seconds + time.perf_counter() - start,
        }
        write_atomically(state_path, lambda path: torch.save(state, path))

    def note(entry: dict[str, Any]) -> None:
        log.append(entry)
        with log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    start = saved = time.perf_counter()
    running: dict[str, float] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not os.isatty(2)) as progress:
        task = progress.add_task(title, total=config.steps, completed=step)
        try:
            while step < config.steps:
                model.train()
                for group in optimiser.param_groups:
                    group["lr"] = rate_at(step, config)
                losses = loss(step)
                optimiser.zero_grad(set_to_none=True)
                losses["loss"].backward()
                nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], config.clip)
                optimiser.step()
                step += 1
                for name, value in losses.items():
                    running[name] = 0.98 * running.get(name, float(value.detach())) + 0.02 * float(value.detach())
                progress.update(task, completed=step, description=f"{title} {running['loss']:.4f}")
                if config.evaluate_every and (step % config.evaluate_every == 0 or step == config.steps):
                    entry: dict[str, Any] = {"step": step, "seconds": round(seconds + time.perf_counter() - start, 1)}
                    entry |= {name: round(value, 5) for name, value in running.items()}
                    if evaluate is not None:
                        model.eval()
                        with torch.no_grad():
                            figures = evaluate()
                        entry |= {f"valid_{name}": round(float(value), 5) for name, value in figures.items()}
                        value = float(figures[monitor])
                        best, bad = (value, 0) if value < best else (best, bad + 1)
                        if bad == 0 and config.patience:
                            best_weights = weights()
                    note(entry)
                    if config.patience and bad >= config.patience:
                        break
                if time.perf_counter() - saved > config.save_seconds:
                    save()
                    saved = time.perf_counter()
        except KeyboardInterrupt:
            save()
            raise
    if best_weights is not None:
        model.load_state_dict(best_weights, strict=False)
    model.eval()
    state_path.unlink(missing_ok=True)
    return log
