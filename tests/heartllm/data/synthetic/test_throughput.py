"""A recording costs at most a fixed multiple of the Fourier transforms that its noise needs, on any machine."""

from __future__ import annotations

import time

import numpy as np
import pytest

from heartllm.data.synthetic.simulation import draw

pytest.importorskip("pytest_benchmark")


@pytest.mark.benchmark(group="synthetic")
def test_a_recording_costs_few_transforms(benchmark: object) -> None:
    leads = np.random.default_rng(0).normal(size=(8, 5000))
    reference = []
    for _ in range(30):
        start = time.perf_counter()
        np.fft.irfft(np.fft.rfft(leads), 5000)
        reference.append(time.perf_counter() - start)
    indices = iter(range(10_000))
    benchmark.pedantic(lambda: draw(1, next(indices), "a"), rounds=40, warmup_rounds=4)  # type: ignore[attr-defined]
    ratio = benchmark.stats.stats.min / min(reference)  # type: ignore[attr-defined]
    benchmark.extra_info["transforms_a_recording"] = round(ratio, 1)  # type: ignore[attr-defined]
    assert ratio < 30
