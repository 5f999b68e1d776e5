"""Runs that are killed without warning, at any moment and in any number of processes, end as if they had not been."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from heartllm_eval.samples import read_samples

SCRIPT = Path(__file__).with_name("slow_run.py")
PAUSE = "0.004"


def command(out: Path, count: int = 1) -> list[str]:
    several = ["--launch", str(count)] if count > 1 else []
    return [sys.executable, str(SCRIPT), *several, str(out), PAUSE]


def written(out: Path) -> int:
    return sum(path.stat().st_size for path in (out / "invented_qa" / "model").glob("samples*.jsonl"))


def record(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))


def kill_once(out: Path, whole: int, generator: random.Random, count: int) -> bool:
    """Starts the run and kills it: when some more is written, or after some time. False if it ended before."""
    process = subprocess.Popen(command(out, count), stderr=subprocess.DEVNULL)
    if generator.random() < 0.6:  # by what is written: neither a fast nor a busy machine ends the run early
        target = min(written(out) + generator.uniform(0.001, 0.08) * whole, whole)
        while process.poll() is None and written(out) < target:
            time.sleep(0.003)
    else:  # by the clock: while it starts, reads what is there, or scores
        time.sleep(generator.uniform(0.05, 1.2))
    ended = process.poll() is not None
    process.kill()
    process.wait()
    return not ended


@pytest.mark.parametrize(
    ("kills", "counts"), [(5, (1, 2)), pytest.param(30, (1, 1, 2, 3), marks=pytest.mark.slow)], ids=["5", "30"]
)
def test_kills_lose_and_double_nothing(tmp_path: Path, kills: int, counts: tuple[int, ...]) -> None:
    generator, out, whole = random.Random(kills), tmp_path / "killed", tmp_path / "whole"
    subprocess.run(command(whole), check=True)
    size = written(whole)
    done = 0
    while done < kills:
        done += kill_once(out, size, generator, generator.choice(counts))
    subprocess.run(command(out), check=True)
    first, second = record(whole), record(out)
    assert second["status"] == "done"
    assert second["resumed"] >= kills // 3  # most kills came when the run had begun
    for part in ("config", "tasks", "systems", "figures", "differences", "signatures"):
        assert first[part] == second[part], part
    files = [folder / "invented_qa" / "model" / "samples.jsonl" for folder in (whole, out)]
    found = [sample.request.id for sample in read_samples(files[1])]
    assert len(found) == len(set(found)) == 186
    assert files[0].read_bytes() == files[1].read_bytes()
    assert [path.name for path in files[1].parent.iterdir()] == ["samples.jsonl"]
