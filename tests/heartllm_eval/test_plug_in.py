"""A package of somebody else's, built and installed, whose adapter `heartllm-eval run --model shouting` finds."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heartllm.data.ptbxl import COLUMNS

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "shouting-model"
version = "1.0"

[project.entry-points."heartllm_eval.models"]
shouting = "shouting_model:Shouting"
torn = "shouting_model:NoSuchClass"
"""

# The whole of a user's adapter: 15 lines.
MODULE = '''
from heartllm_eval.models.base import Context, Task
from heartllm_eval.schema import Prediction


class Shouting:
    """Answers every question with one word."""

    def __init__(self, context: Context, *, word: str = "yes") -> None:
        self.word = word

    def describe(self):
        return {"word": self.word}

    def predict(self, requests, task: Task):
        for request in requests:
            yield Prediction(request.id, f"{self.word.upper()}.")
'''

SUITE = """
version = 1
name = "few"
title = "A few questions"
kind = "qa"
dataset = "ptbxl"
metrics = ["exact_match.strict"]

[questions]
source = "genuine"
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with PTB-XL's table for ten recordings, and one genuine question about each of the test ones."""
    root = tmp_path / "data"
    (root / "ptbxl").mkdir(parents=True)
    with (root / "ptbxl" / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        for number in range(1, 11):
            fold = 10 if number % 2 else 1
            writer.writerow(
                {"ecg_id": number, "patient_id": 100 + number, "age": 60, "sex": number % 2, "strat_fold": fold,
                 "scp_codes": "{'NORM': 100.0}", "filename_hr": f"records500/00000/{number:05d}_hr"}
            )  # fmt: skip
    for split, offset in (("test", 1), ("train", 2)):
        folder = root / "ecgqa" / "ptbxl" / "template" / split
        folder.mkdir(parents=True)
        rows = [
            {"template_id": 1, "question_id": 0, "sample_id": number, "question_type": "single-verify",
             "attribute_type": "scp_code", "question": "Does this ECG show symptoms of normal ecg?",
             "answer": ["yes" if number < 7 else "no"], "ecg_id": [number], "attribute": ["normal ecg"]}
            for number in range(offset, 11, 2)
        ]  # fmt: skip
        (folder / "0.json").write_text(json.dumps(rows), encoding="utf-8")
    (root / "few.toml").write_text(SUITE, encoding="utf-8")
    return root


def evaluate(data: Path, installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "heartllm_eval", "run", "-t", "few", "--include_path", str(data / "few.toml"),
         "--data_root", str(data), "--confidence_n", "100", *arguments],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


def install(tmp_path: Path, *, build: bool) -> Path:
    """Into a folder of its own: by pip and hatchling, or, where these are not installed, written as pip would."""
    installed = tmp_path / "installed"
    if build:
        source = tmp_path / "source"
        (source / "shouting_model").mkdir(parents=True)
        (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
        (source / "shouting_model" / "__init__.py").write_text(MODULE, encoding="utf-8")
        command = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(installed)]
        subprocess.run(
            [sys.executable, "-m", "pip", *command, str(source)], check=True, capture_output=True, timeout=300
        )
        return installed
    about = installed / "shouting_model-1.0.dist-info"
    about.mkdir(parents=True)
    (installed / "shouting_model.py").write_text(MODULE, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting-model\nVersion: 1.0\n", encoding="utf-8")
    points = PROJECT.split('"heartllm_eval.models"]')[1].replace('"', "")
    (about / "entry_points.txt").write_text(f"[heartllm_eval.models]{points}", encoding="utf-8")
    return installed


@pytest.mark.parametrize("build", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_plug_in_is_run(tmp_path: Path, data: Path, build: bool) -> None:
    if build and not (importlib.util.find_spec("pip") and importlib.util.find_spec("hatchling")):
        pytest.skip("building a package needs pip and hatchling (the dev extra)")
    installed = install(tmp_path, build=build)
    out = tmp_path / "run"
    done = evaluate(data, installed, "-M", "shouting", "--control", "majority,gold", "-o", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["systems"]["model"]["model"] == {"word": "yes"}
    values = {part["system"]: part["value"] for part in record["figures"] if part["slice"] == "all"}
    assert values == {"model": 60.0, "majority": 60.0, "gold": 100.0}
    other = evaluate(data, installed, "-M", "shouting", "-a", "word=no", "-o", str(out))
    assert other.returncode == 2
    assert "the folder holds another run" in other.stderr.strip().splitlines()[-1]
    assert "Traceback" not in other.stderr


def test_plug_ins_that_are_wrong_are_told_in_one_line(tmp_path: Path, data: Path) -> None:
    installed = install(tmp_path, build=False)
    for arguments, told in (
        (("-M", "torn"), "shouting_model has no 'NoSuchClass'. Correct the package's entry point."),
        (("-M", "shoutin"), "Did you mean 'shouting'?"),
        (("-M", "shouting", "-a", "words=no"), "shouting takes no argument 'words'. Did you mean 'word'?"),
    ):
        done = evaluate(data, installed, *arguments, "-o", str(tmp_path / "run"))
        assert done.returncode == 2
        assert done.stderr.strip().endswith(told)
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "run").exists()
