"""A few hundred fuzz cases of each kind of input: `make fuzz` runs 100,000 of them, from other seeds."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz.py")
CASES, SLOW = 200, dict.fromkeys(("checkpoints", "authors"), 60)  # those build models
SEED = 20
LIGHT = ("tables", "ecgqa", "predictions", "suites")  # what a base install reads
HEAVY = ("wfdb", "cinc", "csv", "recipes", "checkpoints", "authors")
HAS_MODEL_STACK = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "wfdb", "scipy"))


@pytest.mark.parametrize("kind", [*LIGHT, *(pytest.param(kind, marks=pytest.mark.model) for kind in HEAVY)])
def test_only_our_errors_come_out(kind: str, tmp_path: Path) -> None:
    cases = SLOW.get(kind, CASES)
    command = [sys.executable, str(PROGRAM), "--seed", str(SEED), "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--batch", kind, "0", str(cases), str(tmp_path / "line.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = json.loads((tmp_path / "line.json").read_text())
    told = [(tmp_path / "faults" / name / "told.txt").read_text() for name in line["faults"]]
    assert not told, "\n".join(told)[:6000]
    assert sum(line["results"].values()) == cases
    assert line["results"]["refused"] > cases // 10  # or nothing was tried
    assert line["results"]["read"] > cases // 50
    assert line["slowest"] < 5
    assert line["megabytes"] < 1000


def test_a_case_is_made_again_from_its_seed_and_a_run_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--cases", "40", "--kinds", "suites", "--out", str(tmp_path)]
    first = subprocess.run([*command, "--table", str(tmp_path / "fuzz")], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "suites 0:" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "suites 0:" not in again.stdout  # all of it is done
    assert (tmp_path / "fuzz.md").read_text() in again.stdout
    made = subprocess.run(
        [sys.executable, "-c", MAKE_AGAIN, str(PROGRAM.parent)], capture_output=True, text=True, check=False
    )
    assert made.stdout.strip() == "True", made.stderr


MAKE_AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
import fuzz
kind = fuzz.kind_of("suites")
cases = [[kind.case(fuzz.generator(3, "suites", number), number) for number in range(60)] for _ in range(2)]
print(cases[0] == cases[1])
"""
