"""What the two encoders cost: forward and backward over 10 s recordings, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.codec.networks import PaperEncoder, PlainEncoder  # noqa: E402

ENCODERS = {"plain": PlainEncoder, "paper": PaperEncoder}
RECORDINGS = 2
RATIO = 4  # the paper's encoder costs at least so much more; about 8 to 10 times on an idle core


def step(kind: str) -> Callable[[], None]:
    """A training step of an encoder on RECORDINGS recordings, without the optimiser."""
    torch.manual_seed(0)
    encoder, signal = ENCODERS[kind](4), torch.randn(RECORDINGS, 12, 5000)

    def run() -> None:
        encoder.zero_grad()
        encoder(signal).square().mean().backward()

    return run


@pytest.mark.model
@pytest.mark.benchmark(group="codec encoder, forward and backward, 2 recordings")
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_speed(benchmark: Any, kind: str) -> None:
    benchmark.pedantic(step(kind), rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # nothing is measured among parallel processes
        benchmark.extra_info["core_seconds_a_recording"] = benchmark.stats.stats.min / RECORDINGS


@pytest.mark.model
def test_plain_encoder_is_several_times_cheaper() -> None:
    """Best of three each, in turn, in processor time: a busy machine slows both."""
    runs = {kind: step(kind) for kind in ENCODERS}
    best = dict.fromkeys(ENCODERS, float("inf"))
    for run in runs.values():
        run()
    for _ in range(3):
        for kind, run in runs.items():
            start = time.process_time()
            run()
            best[kind] = min(best[kind], time.process_time() - start)
    print({kind: round(seconds / RECORDINGS, 4) for kind, seconds in best.items()})
    assert best["paper"] > RATIO * best["plain"]
