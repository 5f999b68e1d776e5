"""A batch in parts, over one process or several: the same curve, and a killed run goes on."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from heartllm.errors import HeartLLMError, UsageError
from heartllm.language.packing import collate
from heartllm.training.examples import Drawing, Examples, at, draw_sequence
from heartllm.training.language import LanguageRecipe, train_language
from heartllm.training.loop import LoopConfig, _groups, fit, rate_at, settings_of
from heartllm.training.objective import Objective, Weights
from heartllm.training.processes import Part, joined, leads, parts

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")
RECIPE = LanguageRecipe(
    LoopConfig(steps=6, evaluate_every=2, warmup=1, save_seconds=0.0), Weights(1.0, 0.1, 1.0), Drawing(crop=3), batch=5
)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


Trained = Callable[..., tuple[dict[str, torch.Tensor], list[dict[str, Any]]]]


@pytest.fixture
def trained(make_model: Callable[..., Any], examples: Examples, started: Callable[..., list[int]]) -> Trained:
    """Final weights and log of a run with `count` processes, as process 0 has them."""

    def train(folder: Path, recipe: LanguageRecipe = RECIPE, count: int = 1, fsdp: bool = False) -> Any:
        def work() -> None:
            model = make_model()
            kinds = [type(part) for part in model.modules()]
            train_language(model, recipe, examples, examples, folder, title="t")
            assert [type(part) for part in model.modules()] == kinds
            if leads():
                torch.save(weights(model), folder / "weights.pt")

        if count == 1:
            work()
        else:
            assert started(count, work, fsdp) == [0] * count
        lines = (folder / "log.jsonl").read_text().splitlines()
        log = [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]
        return torch.load(folder / "weights.pt", weights_only=True), log

    return train


def assert_close(found: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
    for name, value in wanted[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-3, atol=2e-5, msg=name)
    for line, other in zip(found[1], wanted[1], strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=2e-5)


def test_one_process_is_a_plain_loop(
    make_model: Callable[..., Any], examples: Examples, trained: Trained, tmp_path: Path
) -> None:
    found, _ = trained(tmp_path / "run", recipe := replace(RECIPE, weights=Weights(1.0, 0.1)))
    torch.manual_seed(recipe.loop.seed)
    model, loop = Objective(make_model(), None, recipe.weights), recipe.loop
    groups = _groups(model, loop.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=loop.learning_rate, betas=(0.9, 0.98), fused=True)
    for step in range(loop.steps):
        rng, model = np.random.default_rng((loop.seed, step)), model.train()
        rows = [examples.row(at(step * recipe.batch + i, len(examples), loop.seed)) for i in range(recipe.batch)]
        drawn = [draw_sequence(row, examples.vocabulary, model.language.levels, recipe.drawing, rng) for row in rows]
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, loop)
        loss = model(collate(drawn, examples.vocabulary.pad), torch.zeros(recipe.batch, 0), None, None)["loss"]
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], loop.clip)
        optimiser.step()
    for name, value in weights(model.language).items():
        assert torch.equal(found[name], value), name


def test_parts_and_processes_do_not_change_the_curve(trained: Trained, tmp_path: Path) -> None:
    whole = trained(tmp_path / "1")
    assert len(whole[1]) == 3
    in_parts = replace(RECIPE, loop=replace(RECIPE.loop, accumulate=3))
    assert_close(trained(tmp_path / "3", in_parts), whole)
    assert_close(trained(tmp_path / "2x1", RECIPE, 2), whole)
    assert_close(trained(tmp_path / "2x2", in_parts, 2), whole)


def test_a_model_cut_over_processes_learns_the_same(trained: Trained, tmp_path: Path) -> None:
    whole = trained(tmp_path / "1")
    assert_close(trained(tmp_path / "2x1", RECIPE, 2, fsdp=True), whole)
    in_parts = replace(RECIPE, checkpointing=True, loop=replace(RECIPE.loop, accumulate=3))
    assert_close(trained(tmp_path / "2x2", in_parts, 2, fsdp=True), whole)


def test_layers_computed_twice_change_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole")
    import torch.utils.checkpoint as twice

    calls, original = [0], twice.checkpoint

    def count(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        return original(*arguments, **more)

    monkeypatch.setattr(twice, "checkpoint", count)
    import transformers.modeling_utils as hf

    if hasattr(hf, "checkpoint"):
        monkeypatch.setattr(hf, "checkpoint", count)
    assert_close(trained(tmp_path / "twice", replace(RECIPE, checkpointing=True)), whole)
    assert calls[0] >= 2 * RECIPE.loop.steps  # two layers


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "after"), [(1, 2), (0, 2), (1, 1)])
@pytest.mark.parametrize("fsdp", [False, True])
def test_a_run_killed_on_any_rank_goes_on(
    make_model: Callable[..., Any],
    examples: Examples,
    trained: Trained,
    started: Callable[..., list[int]],
    tmp_path: Path,
    victim: int,
    after: int,
    fsdp: bool,
) -> None:
    """Also with another number of processes, and a run of FSDP without it."""
    whole = trained(tmp_path / "whole", RECIPE, 2, fsdp)

    def dies() -> None:
        from heartllm.training import objective
        from heartllm.training.processes import world

        original, calls = objective.language_losses, [0]

        def press(*arguments: Any) -> Any:
            calls[0] += torch.is_grad_enabled()
            if calls[0] == 4 and world().rank == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        objective.language_losses = press
        train_language(make_model(), RECIPE, examples, examples, tmp_path / "run", title="t")

    codes = started(2, dies, fsdp)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1  # our error, not a traceback
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
    again = trained(tmp_path / "run", RECIPE, after, fsdp and after == 2)
    assert_close(again, whole)
    if after == 2:
        assert all(torch.equal(again[0][name], value) for name, value in whole[0].items())


def test_parts_cover_a_batch_and_too_many_are_refused() -> None:
    for count in (1, 2, 3, 5):
        rows = [row for number in range(count) for row in range(5)[Part(number, count).of(5)]]
        assert rows == list(range(5))
    assert [part.count for part in parts(3, 5, "here")] == [3, 3, 3]
    with pytest.raises(UsageError, match="a batch of 5 cannot be cut into 6 parts"):
        parts(6, 5, "here")
    with pytest.raises(UsageError, match="CLIP: compares all items of a batch"):
        parts(2, 1, "CLIP")


def test_launchers_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str, device: str = "cpu", **environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=match), joined(device):
            pass

    refused("one process of several", ACCELERATE_USE_CPU="True", MASTER_PORT="1")
    refused("where process 0 is", ACCELERATE_USE_CPU="False", WORLD_SIZE="2", RANK="0")
    refused("cuda:1 is one device", "cuda:1")


def test_fingerprints_do_not_know_of_parts() -> None:
    other = replace(RECIPE, checkpointing=True, loop=replace(RECIPE.loop, accumulate=4))
    assert settings_of(other) == settings_of(RECIPE)
    assert "accumulate" not in settings_of(RECIPE)


def test_too_little_memory_is_told_with_numbers(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)

    def loss(trained: nn.Module, step: int, part: Part) -> dict[str, torch.Tensor]:
        return {"loss": trained(torch.empty(1 << 50, 1)).sum()}

    for accumulate, match in ((1, "for 6 of a step's 6.*accumulate = 2"), (6, "for 1 of a step's 6.*smaller model")):
        with pytest.raises(HeartLLMError, match=match):
            fit(model, loss=loss, batch=6, config=LoopConfig(steps=1, accumulate=accumulate), folder=tmp_path)
    assert math.isfinite(float(model.weight.detach()))
