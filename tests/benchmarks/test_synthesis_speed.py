"""A recording costs at most a fixed multiple of the Fourier transforms that its noise needs, on any machine; writing
it costs little more, and the same whether or not the user limits the threads of numpy's BLAS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.data.synthetic.simulation import draw
from heartllm.data.synthetic.writing import BLAS_THREADS, write_chunk

ROUNDS, MOST_TRANSFORMS = 40, 30.0
MOST_DRAWS = 2.0  # 1.2 are usual; a slow file system adds to them
MOST_WITHOUT_LIMIT = 1.6  # times the processor time with one thread; idle BLAS threads made it two to four times
WRITE = """
import resource, sys
from pathlib import Path
from heartllm.data.synthetic import write_site
if __name__ == "__main__":
    write_site("a", Path(sys.argv[1]), recordings=401, seed=1)  # three chunks, so that two workers have something to do
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(one.ru_utime + one.ru_stime for one in used))
"""


def seconds(run: Callable[[], object]) -> float:
    """Processor time, so that other work on the machine does not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


@pytest.mark.benchmark(group="synthetic")
def test_a_recording_costs_few_transforms(race: Any) -> None:
    leads = np.random.default_rng(0).normal(size=(8, 5000))
    draw(1, 10_000, "a")  # the first one also imports and builds tables
    race(
        "synthetic recording, drawn",
        unit="recording",
        ours=lambda: draw_chunk("a", range(ROUNDS)),
        plain=lambda: [np.fft.irfft(np.fft.rfft(leads), 5000) for _ in range(ROUNDS)],
        plain_is="the Fourier transforms that its noise needs, and nothing else",
        units=ROUNDS,
        least=1 / MOST_TRANSFORMS,
    )


def draw_chunk(site: str, chunk: range) -> None:
    for index in chunk:
        draw(1, index, site)


@pytest.mark.parametrize("site", ["a", "b"])
def test_writing_costs_little_more_than_drawing(site: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write_chunk(site, tmp_path, 1, range(10_000, 10_001))
    drawn, written = float("inf"), float("inf")
    for start in range(0, ROUNDS, 10):  # in turn: what slows the machine slows both
        chunk = range(start, start + 10)
        drawn = min(drawn, seconds(partial(draw_chunk, site, chunk)))
        written = min(written, seconds(partial(write_chunk, site, tmp_path, 1, chunk)))
    print(f"site {site}: a written recording costs {written / drawn:.2f} drawn ones")
    assert written < MOST_DRAWS * drawn


def test_blas_threads_that_nobody_limited_cost_nothing(tmp_path: Path) -> None:
    script = tmp_path / "write.py"
    script.write_text(WRITE)
    free = {
        name: value for name, value in os.environ.items() if not name.endswith(("_NUM_THREADS", "_MAXIMUM_THREADS"))
    }
    used = {}
    for name, environment in (("limited", free | dict.fromkeys(BLAS_THREADS, "1")), ("free", free)):
        command = [sys.executable, str(script), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        used[name] = float(done.stdout)
    print(f"processor seconds for 401 recordings: {used}")
    assert used["free"] < MOST_WITHOUT_LIMIT * used["limited"]
