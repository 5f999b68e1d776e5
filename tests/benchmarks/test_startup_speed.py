"""The commands that only tell start fast: they import neither torch nor what metrics need."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import pytest

LIMIT = 0.6  # seconds of processor time; the wall clock of a busy machine says nothing


def processor_seconds(code: str, *arguments: str) -> tuple[float, str]:
    measure = "import resource; u = resource.getrusage(resource.RUSAGE_SELF); print('SECONDS', u.ru_utime + u.ru_stime)"
    program = f"import atexit, sys\natexit.register(lambda: exec({measure!r}))\n{code}"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.rsplit("SECONDS ", 1)[1]), done.stdout


TELLING = (
    "--help",
    "ls",
    "ls models",
    "ls metrics",
    "ls snomed",
    "run --help",
    "score --help",
    "compare --help",
    "measure --help",
    "paper --help",
)


@pytest.mark.parametrize("arguments", [command.split() for command in TELLING])
def test_what_only_tells_starts_in_time_and_without_torch(arguments: list[str]) -> None:
    code = (
        "import heartllm_eval.cli as cli\n"
        "sys.argv[0] = 'heartllm-eval'\n"
        "heavy = ('torch', 'transformers', 'wfdb', 'scipy', 'nltk', 'sacrebleu', 'numpy', 'pandas')\n"
        "atexit.register(lambda: print('LOADED', [name for name in heavy if name in sys.modules]))\n"
        "cli.main()\n"
    )
    began = time.perf_counter()
    times = []
    for _ in range(3):
        seconds, output = processor_seconds(code, *arguments)
        times.append(seconds)
        assert "LOADED []" in output
    print(f"{' '.join(arguments)}: {statistics.median(times):.2f} s of processor, {time.perf_counter() - began:.2f} s")
    assert min(times) < LIMIT


@pytest.mark.benchmark(group="start-up")
def test_help_against_importing_the_stack(benchmark: Any) -> None:
    """In processes of their own, whose processor time the row tells."""
    pytest.importorskip("torch")
    ours, plain = "import sys; sys.argv[:] = ['heartllm', '--help']; import heartllm.cli as c; c.main()", "import torch"
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}

    def run() -> None:
        for name, code in (("ours", ours), ("plain", plain)):
            seconds[name].append(processor_seconds(code)[0])

    benchmark.pedantic(run, rounds=3, iterations=1)
    ratio = min(seconds["plain"]) / min(seconds["ours"])
    benchmark.extra_info.update(
        row="start-up of `heartllm --help`", unit="start", plain_is="import torch", seconds=seconds, least=1.5
    )
    print(f"start-up {min(seconds['ours']):.2f} s, ratio {ratio:.1f}")
    assert ratio >= 1.5
