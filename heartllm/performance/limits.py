"""What this machine can do at most, measured: matrix products and memory copies, with the threads torch has now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Clock = Callable[[], float]


def synchronised(device: str) -> Clock:
    """A clock that waits for a GPU to finish what it was given; wall-clock seconds."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def best(run: Callable[[], object], clock: Clock, seconds: float) -> float:
    """The quickest of the runs that fit into about `seconds`, three at least; one more comes first, to warm up."""
    run()
    quickest, begun, count = float("inf"), clock(), 0
    while count < 3 or clock() - begun < seconds:
        start = clock()
        run()
        quickest, count = min(quickest, clock() - start), count + 1
    return quickest


def matrix_rate(
    dtype: torch.dtype = torch.float32,
    *,
    device: str = "cpu",
    size: int | None = None,
    seconds: float = 1.0,
    clock: Clock | None = None,
) -> float:
    """Operations a second of a square matrix product, the best seen; a multiplication with its addition is two.

    Args:
        size: of the matrices; 1024 on a CPU and 8192 on a GPU where None.
        clock: `time.process_time` on a busy machine; wall-clock time where None.
    """
    size = size or (8192 if device.startswith("cuda") else 1024)
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(one)
    clock = clock or synchronised(device)
    with torch.inference_mode():
        return 2.0 * size**3 / best(lambda: torch.matmul(one, two, out=out), clock, seconds)


def copy_rate(*, device: str = "cpu", megabytes: int = 256, seconds: float = 1.0, clock: Clock | None = None) -> float:
    """Bytes a second of a copy in memory that no cache holds, the best seen; a byte read and written counts once."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    clock = clock or synchronised(device)
    return source.numel() / best(lambda: target.copy_(source), clock, seconds)


def machine_limits(device: str = "cpu", *, seconds: float = 1.0, clock: Clock | None = None) -> dict[str, float]:
    """`fp32` and `bf16` operations a second, and `copy` bytes a second."""
    settings: dict[str, Any] = {"device": device, "seconds": seconds, "clock": clock}
    return {
        "fp32": matrix_rate(torch.float32, **settings),
        "bf16": matrix_rate(torch.bfloat16, **settings),
        "copy": copy_rate(**settings),
    }
