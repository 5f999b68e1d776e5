"""What the harness reads: predictions, references and run folders; suites."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from random import Random

from fuzzkit import nasty
from fuzzkit.files import Files, collect
from fuzzkit.kind import Kind

from heartllm_eval.files import check_run, score_predictions, write, write_answers
from heartllm_eval.models.predictions import read_predictions
from heartllm_eval.references import read_references
from heartllm_eval.schema import dumps
from heartllm_eval.scoring import Options
from heartllm_eval.suite import read_suite, select
from heartllm_eval.testing import invented_requests

REQUESTS = invented_requests("test", patients=2)
WANTED = [request.id for request in REQUESTS]


def predictions() -> list[Files]:
    """Predictions and references in every form, and a run folder."""
    rows: list[dict[str, object]] = [
        {"id": request.id, "prediction": "yes", "option_scores": {"yes": -0.1, "no": -2.4}} for request in REQUESTS
    ]
    right = [
        {"id": request.id, "answer": list(request.references), "patient_id": 7, "sex": "female"} for request in REQUESTS
    ]
    listed = "".join(json.dumps(row) + "\n" for row in rows).encode()
    asked = "".join(f"{dumps(request)}\n" for request in REQUESTS).encode()
    said = "id,prediction\n" + "".join(f'{key},"yes, it does"\n' for key in WANTED)
    return [
        {"a.jsonl": listed},
        {"a.json": json.dumps(rows, indent=1).encode()},
        {"a.json": json.dumps({key: ["yes", "no"] for key in WANTED}).encode()},
        {"a.csv": said.encode()},
        {"refs.jsonl": asked},
        {"refs.json": json.dumps(right).encode()},
        {"refs.csv": ("id,report,options\n" + "".join(f"{key},sinus rhythm,yes; no\n" for key in WANTED)).encode()},
        run(listed),
    ]


def run(listed: bytes) -> Files:
    """A run folder, as `heartllm-eval score -o` writes it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jsonl").write_bytes(listed)
        record = score_predictions(
            folder / "a.jsonl", REQUESTS, name="t", metrics=("exact_match.strict",), verbosity=0,
            options=Options(resamples=20),
        )  # fmt: skip
        write_answers(folder / "run", "t", REQUESTS, folder / "a.jsonl")
        write(record, folder / "run")
        return collect(folder)


def read_rows(folder: Path, rng: Random) -> None:
    """Predictions against what was asked, references, or a run."""
    if (folder / "run").exists():
        check_run(folder / "run")
        return
    path = next(
        (path for path in sorted(folder.iterdir()) if path.suffix in (".jsonl", ".json", ".csv")), folder / "a.csv"
    )
    if path.stem == "refs":
        read_references(path)
    else:
        read_predictions(path, WANTED)


PREDICTIONS = Kind("predictions", predictions, read_rows)


# Suites -------------------------------------------------------------------------------------------------------------
def suites() -> list[Files]:
    """Bundled ones, one with every table written out, and a folder of two."""
    bundled = sorted(Path(str(resources.files("heartllm_eval") / "suites")).glob("*.toml"))
    whole = """version = 1
name = "mine"
title = "Mine"
kind = "qa"
dataset = "ptbxl"
zero_shot_from = ["mimic"]
metrics = ["exact_match.strict", "jaccard.strict"]
primary = "jaccard.strict"
slices = ["question_type", "sex"]
tags = ["own"]

[reader]
length = "crop"
nan_policy = "interpolate"

[questions]
source = "derived"
per_cell = 4
templates = [1, 2, 3]

[prompt]
features = false

[generation]
max_new_tokens = 12
"""
    some = [path for path in bundled if path.stem in ("ptbxl_qa", "ptbxl_reports", "synthetic_a_qa")]
    return [
        *({path.name: path.read_bytes()} for path in some),
        {"mine.toml": whole.encode(), some[0].name: some[0].read_bytes()},
    ]


def metrics(rng: Random, files: Files) -> Files:
    """A metric, slice, tag or dataset of an odd name."""
    name = rng.choice(list(files))
    text = files[name]
    assert isinstance(text, bytes)
    key = rng.choice(("metrics", "slices", "tags", "primary", "dataset", "name", "split", "zero_shot_from"))
    odd = json.dumps(nasty.text(rng))
    listed = f"[{odd}, {odd}]" if rng.random() < 0.5 else odd
    kept = [line for line in text.decode().splitlines() if not line.startswith(key)]
    return {**files, name: "\n".join([f"{key} = {listed}", *kept]).encode("utf-8", "replace")}


def read_suites(folder: Path, rng: Random) -> None:
    """Each by itself, or the folder as `--include_path` with a name or tag."""
    paths = sorted(folder.glob("*.toml"))
    if rng.random() < 0.1:  # all the bundled ones are read as well
        select([rng.choice(("mine", "own") if len(paths) > 1 else ("ptbxl_qa",))], [folder])
    for path in paths:
        read_suite(path)


SUITES = Kind("suites", suites, read_suites, ("mine.toml",), (metrics,), 0.2, also=("--tasks: ",))

KINDS: Sequence[Kind] = (PREDICTIONS, SUITES)
