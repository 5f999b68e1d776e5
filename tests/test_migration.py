"""What earlier commits of this project wrote still opens, and still says the same (tests/fixtures/README.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from heartllm.errors import DataError
from heartllm_eval.files import check_run, read_run, rescore
from heartllm_eval.records import read_json, read_record
from heartllm_eval.schema import SCHEMA_VERSION

OLD = Path(__file__).parent / "fixtures" / "commit-7a119c1"


def test_an_old_run_opens_whole() -> None:
    record, requests, answers = read_run(OLD / "run")
    assert record["status"] == "done"
    assert record["schema_version"] <= SCHEMA_VERSION
    assert {name: len(given) for name, given in answers.items()} == {
        ("synthetic_a_qa", system): 12 for system in ("model", "majority", "shuffled")
    }
    assert len(requests["synthetic_a_qa"]) == 12
    assert check_run(OLD / "run") == 36


def test_an_old_run_scored_anew_gives_the_scores_it_had(tmp_path: Path) -> None:
    """Scores may only gain metrics: those that the old record holds keep their values."""
    folder = tmp_path / "run"
    shutil.copytree(OLD / "run", folder)
    before = {(f.system, f.metric, f.slice): f.value for f in read_record(OLD / "run").figures}
    rescore(folder)
    after = {(f.system, f.metric, f.slice): f.value for f in read_record(folder).figures}
    assert before
    assert {key: after.get(key) for key in before} == before


def test_a_record_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    record = json.loads((OLD / "run" / "run.json").read_text(encoding="utf-8"))
    record["schema_version"] = SCHEMA_VERSION + 1
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError, match=f"schema version {SCHEMA_VERSION + 1}"):
        read_json(tmp_path)


@pytest.mark.model
def test_an_old_checkpoint_encodes_and_answers_as_it_did() -> None:
    from heartllm.ecg.recording import Recording
    from heartllm.language.generation import ResponderItem
    from heartllm.responder import Responder

    expected = json.loads((OLD / "answers.json").read_text(encoding="utf-8"))
    time = np.arange(5000) / 500
    signal = np.stack([(0.2 + 0.1 * k) * np.sin(2 * np.pi * (1.1 + 0.1 * k) * time) for k in range(12)])
    responder = Responder.load(OLD / "checkpoint")
    codes = responder.encode(Recording(signal.astype(np.float32), 500.0, "formula"))
    # Other CPUs sum in another order: a latent on a rounding border may then fall to the other side.
    assert np.mean(codes != np.array(expected["codes"])) <= 0.01
    told = np.array(expected["codes"], np.int64)
    items = [ResponderItem("formula", told, question, "Age: 54 years.") for question in expected["questions"]]
    assert list(responder.answer(items)) == expected["answers"]
