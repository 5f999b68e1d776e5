"""What the rows of the benchmark have in common: two ways through the same work, in turn, in processor time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Race:
    """Our way against a plain one, in one run.

    Both are run in turn, so that what slows the machine slows both, and timed in processor time, so that other work
    does not count. The least ratio is asked of the quickest runs, which are disturbed least; `make bench` tells the
    medians. What is measured lies in the `extra_info` of pytest-benchmark's JSON, where `heartllm.performance.page`
    finds it.
    """

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def __call__(
        self,
        row: str,
        *,
        unit: str,
        ours: Callable[[], object],
        plain: Callable[[], object] | None = None,
        plain_is: str = "",
        least: float | None = None,
        aim: float | None = None,
        most_seconds: float | None = None,
        rounds: int = 5,
        units: int = 1,
        plain_units: int | None = None,
        work: float | None = None,
        limit: tuple[str, float] | None = None,
        warm: bool = True,
    ) -> float:
        """Measures one row and returns the ratio of the quickest runs; the plain way's seconds a unit over ours.

        Args:
            row: what is measured, as the table calls it.
            unit: what one of `units` is: "recording", "answer", ...
            ours, plain: the two ways; `plain` may be left out where only a limit is asked for.
            plain_is: what the plain way does, for the table.
            least: the ratio below which the row fails. aim: what it should reach.
            most_seconds: processor seconds of one run of ours above which the row fails.
            units, plain_units: how many units a run of either way does.
            work: operations in one run of ours; limit: a rate of this machine and its name, to divide them by.
            warm: run both once before.
        """
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}

        def timed(name: str, run: Callable[[], object]) -> None:
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)

        if warm:
            for run in (ours, plain):
                if run is not None:
                    run()
        self.benchmark.pedantic(
            lambda: timed("ours", ours), setup=lambda: plain and timed("plain", plain), rounds=rounds, iterations=1
        )
        each = {"ours": [part / units for part in seconds["ours"]]}
        if plain is not None:
            each["plain"] = [part / (plain_units or units) for part in seconds["plain"]]
        ratio = min(each["plain"]) / min(each["ours"]) if plain is not None else float("nan")
        info: dict[str, Any] = {"row": row, "unit": unit, "plain_is": plain_is, "seconds": each}
        info |= {"least": least, "aim": aim, "most_seconds": most_seconds}
        if work is not None and limit is not None:
            rate = work / units / statistics.median(each["ours"])
            info |= {"rate": rate, "limit": limit[0], "share": rate / limit[1]}
        self.benchmark.extra_info.update(info)
        told = f"{row}: {1e3 * min(each['ours']):.4g} ms a {unit}"
        if plain is not None:
            told += f", plain {1e3 * min(each['plain']):.4g} ms, ratio {ratio:.2f}"
        print(told + (f", {100 * info['share']:.0f} % of {info['limit']}" if "share" in info else ""))
        if least is not None:
            assert ratio >= least, told
        if most_seconds is not None:
            assert min(seconds["ours"]) <= most_seconds, told
        return ratio


@pytest.fixture
def race(benchmark: Any) -> Race:
    """Measures one row of the table."""
    return Race(benchmark)


@pytest.fixture(scope="session")
def matrix_rates() -> Iterator[dict[str, float]]:
    """Operations a processor second of matrix products in fp32 and bf16 on one thread, measured in this very run."""
    torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
    from heartllm.performance.limits import matrix_rate

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    yield {name: matrix_rate(kind, seconds=0.5, clock=time.process_time) for name, kind in kinds.items()}
    torch.set_num_threads(threads)
