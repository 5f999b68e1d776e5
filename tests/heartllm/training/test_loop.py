"""The training loop: stopped and started again, it ends as if it had never stopped."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heartllm.errors import CheckpointError, DataError
from heartllm.training.loop import LoopConfig, fit, rate_at
from heartllm.training.processes import Part

CONFIG = LoopConfig(steps=40, learning_rate=1e-2, warmup=5, evaluate_every=10, save_seconds=1e9)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.LayerNorm(8), nn.Linear(8, 1))


def target(model: nn.Module, seed: int) -> Tensor:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
    return ((model(x)[:, 0] - x.sum(1)) ** 2).mean()


def train(
    model: nn.Module, folder: Path, config: LoopConfig = CONFIG, before: Callable[[int], object] = lambda step: None
) -> list[dict[str, Any]]:
    def loss(trained: nn.Module, step: int, part: Part) -> Mapping[str, Tensor]:
        before(step)
        return {"loss": target(trained, step)}

    return fit(
        model,
        loss=loss,
        config=config,
        folder=folder,
        evaluate=lambda: {"loss": float(target(model, 10_000))},
        fingerprint="a run",
    )


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def without_times(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in log]


@pytest.fixture
def uninterrupted(tmp_path: Path) -> tuple[Tensor, list[dict[str, Any]]]:
    model = network()
    log = train(model, tmp_path / "whole")
    return flat(model), without_times(log)


class Crash(Exception):
    """A power cut."""


@pytest.mark.parametrize("stops", [[1], [10], [17], [20, 21], [9, 10, 11, 39]])
def test_interrupted_runs_end_the_same(
    tmp_path: Path, uninterrupted: tuple[Tensor, list[dict[str, Any]]], stops: list[int]
) -> None:
    for stop in stops:

        def press(step: int, stop: int = stop) -> None:
            if step == stop:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            train(network(), tmp_path / "run", before=press)
        state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
        assert state["step"] == stop + 1  # the step that was under way is finished
    torch.manual_seed(77)
    model = network()
    torch.manual_seed(77)  # whatever the state of the generator was, the saved one counts
    log = train(model, tmp_path / "run")
    assert torch.equal(flat(model), uninterrupted[0])
    assert without_times(log) == uninterrupted[1]
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert without_times([json.loads(line) for line in lines]) == uninterrupted[1]


def test_a_finished_run_is_kept_until_its_model_is(
    tmp_path: Path, uninterrupted: tuple[Tensor, list[dict[str, Any]]]
) -> None:
    """Whoever is killed between the last step and the checkpoint has the training still."""
    state = tmp_path / "whole" / "state.pt"
    assert torch.load(state, weights_only=True)["step"] == CONFIG.steps

    def never(step: int) -> None:
        raise AssertionError(f"step {step} is done again")

    model = network()
    log = train(model, tmp_path / "whole", before=never)
    assert torch.equal(flat(model), uninterrupted[0])
    assert without_times(log) == uninterrupted[1]
    assert state.exists()


@pytest.mark.parametrize("crash", [3, 15, 25, 39])
def test_a_crash_between_saves_loses_nothing_but_time(
    tmp_path: Path, uninterrupted: tuple[Tensor, list[dict[str, Any]]], crash: int
) -> None:
    from dataclasses import replace

    def cut(step: int) -> None:
        if step == 12:
            os.kill(os.getpid(), signal.SIGINT)

    def die(step: int) -> None:
        if step == crash:
            raise Crash

    if crash > 12:
        with pytest.raises(KeyboardInterrupt):
            train(network(), tmp_path / "run", before=cut)
    with pytest.raises(Crash):
        train(network(), tmp_path / "run", before=die)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')  # and half a line that the crash left
    model = network()
    log = train(model, tmp_path / "run", config=replace(CONFIG, save_seconds=0.0))  # now with a save at every step
    assert torch.equal(flat(model), uninterrupted[0])
    assert without_times(log) == uninterrupted[1]


def test_a_second_interrupt_is_not_held_back(tmp_path: Path) -> None:
    reached = []

    def press(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(step)

    with pytest.raises(KeyboardInterrupt):
        train(network(), tmp_path, before=press)
    assert not reached
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    def press(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), tmp_path, before=press)
    model = network()
    with pytest.raises(CheckpointError, match="other settings or data"):
        fit(
            model,
            loss=lambda model, step, part: {"loss": target(model, step)},
            config=CONFIG,
            folder=tmp_path,
            fingerprint="other",
        )
    assert (tmp_path / "state.pt").exists()


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    model = network()
    figures = iter([5.0, 3.0, 4.0, 3.5, 1.0])
    kept: list[Tensor] = []

    def evaluate() -> Mapping[str, float]:
        kept.append(flat(model))
        return {"loss": next(figures)}

    config = LoopConfig(steps=50, evaluate_every=5, patience=2, warmup=1)
    log = fit(
        model,
        loss=lambda model, step, part: {"loss": target(model, step)},
        config=config,
        folder=tmp_path,
        evaluate=evaluate,
    )
    assert [entry["valid_loss"] for entry in log] == [5.0, 3.0, 4.0, 3.5]
    assert torch.equal(flat(model), kept[1])
    assert not model.training


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = network()
    before = flat(model)
    with pytest.raises(DataError, match="not finite at step 0"):
        fit(
            model,
            loss=lambda model, step, part: {"loss": target(model, step) * math.nan},
            config=CONFIG,
            folder=tmp_path,
        )
    assert torch.equal(flat(model), before)


def test_only_what_trains_is_saved(tmp_path: Path) -> None:
    model = network()
    next(iter(model.children())).requires_grad_(False)

    def press(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, tmp_path, before=press)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state["model"]) == {"2.weight", "2.bias", "3.weight", "3.bias"}


def test_rates_warm_up_and_fall_to_a_twentieth() -> None:
    rates = [rate_at(step, CONFIG) for step in range(41)]
    assert rates[0] == pytest.approx(CONFIG.learning_rate / 5)
    assert max(rates) == rates[4] == rates[5] == CONFIG.learning_rate
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[40] == pytest.approx(CONFIG.learning_rate / 20)
