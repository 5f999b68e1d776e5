"""Where the time of a tuning step and of an evaluation goes, by operator, as torch's profiler counts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from heartllm.language.generation import Generator
from heartllm.performance.rates import QUESTIONS, TOKENS, Stepper, drawn_codes, items, tiny_model, tuning_batch
from heartllm.training.objective import Weights

TOP = 10


def operators(run: Callable[[], object], top: int = TOP) -> list[dict[str, Any]]:
    """Runs once to warm up and once under the profiler: the operators that take most, "others" last, shares of 1.

    An operator's time is its own, without that of operators that it calls.
    """
    run()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    events = sorted(seen.key_averages(), key=lambda event: (-event.self_cpu_time_total, event.key))
    total = sum(event.self_cpu_time_total for event in events) or 1.0
    rows = [
        {"operator": event.key, "share": event.self_cpu_time_total / total, "calls": int(event.count)}
        for event in events[:top]
    ]
    rest = events[top:]
    others = sum(event.self_cpu_time_total for event in rest) / total
    return [*rows, {"operator": "others", "share": others, "calls": sum(int(event.count) for event in rest)}]


def profiles(recipe: str = "tiny", *, ecgs: int = 4) -> dict[str, list[dict[str, Any]]]:
    """A tuning step on so many ECGs with their questions, and the answers to as many, on the CPU."""
    torch.manual_seed(0)
    model = tiny_model(recipe)
    step = Stepper(model, tuning_batch(model.vocabulary, ecgs), Weights(1.0), "cpu", "bf16")
    found = {f"tuning step of {ecgs} ECGs with {QUESTIONS} questions each, bf16 products": operators(step)}
    other = tiny_model(recipe)
    generator, asked = Generator(other), items(drawn_codes(ecgs, other.vocabulary.codes))
    found[f"answers to {QUESTIONS} questions of each of {ecgs} ECGs, {TOKENS} tokens at most, fp32"] = operators(
        lambda: list(generator.answer(asked, max_new_tokens=TOKENS, batch_size=len(asked)))
    )
    return found
