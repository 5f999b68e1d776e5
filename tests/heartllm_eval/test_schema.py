from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heartllm.errors import DataError
from heartllm_eval import cli
from heartllm_eval.planning import RunSpec
from heartllm_eval.runner import run
from heartllm_eval.samples import answered
from heartllm_eval.schema import SCHEMA_VERSION, Difference, Figure, RunRecord, option_scores_from_json
from heartllm_eval.testing import Echo


def published() -> dict[str, Any]:
    return dict(json.loads((resources.files("heartllm_eval") / "run.schema.json").read_text(encoding="utf-8")))


def names(kind: type) -> set[str]:
    return {part.name for part in dataclasses.fields(kind)}


def test_the_schema_names_every_field_of_a_record() -> None:
    schema = published()
    assert set(schema["properties"]) == set(schema["required"]) == names(RunRecord)
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert set(schema["$defs"]["figure"]["properties"]) == names(Figure)
    assert set(schema["$defs"]["difference"]["properties"]) == names(Difference)


def test_the_schema_is_printed() -> None:
    assert json.loads(CliRunner().invoke(cli.app, ["schema"]).output) == published()


def test_a_schema_is_itself_valid(run_schema: Any) -> None:
    type(run_schema).check_schema(run_schema.schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop("data"),
        lambda record: record.update(status="finished"),
        lambda record: record.update(extra=1),
        lambda record: record["figures"][0].pop("n"),
        lambda record: record["figures"].clear(),
        lambda record: record["tasks"]["invented_qa"].update(ids_hash="abc"),
        lambda record: record["settings"].update(batch_size=0),
        lambda record: record.update(error="none, really"),
    ],
)
def test_the_schema_sees_what_is_wrong(spec: RunSpec, run_schema: Any, spoil: Any) -> None:
    run(replace(spec, controls=True), lambda system, context: Echo())
    record = json.loads((spec.output / "run.json").read_text(encoding="utf-8"))
    assert run_schema.is_valid(record)
    spoil(record)
    assert not run_schema.is_valid(record)


def test_a_scored_predictions_file_follows_it(tmp_path: Path, run_schema: Any) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "1", "prediction": "yes"}\n')
    (tmp_path / "r.jsonl").write_text('{"id": "1", "answer": ["yes"]}\n')
    arguments = ["score", str(tmp_path / "p.jsonl"), "-r", str(tmp_path / "r.jsonl"), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    run_schema.validate(json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8")))


def test_option_scores_that_no_float_holds() -> None:
    for value in (10**400, float("inf"), "1", None):
        with pytest.raises(ValueError, match="finite numbers"):
            option_scores_from_json({"yes": value})


def test_a_folder_in_place_of_samples(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.raises(DataError, match=r"samples\.jsonl: cannot be read"):
        answered(tmp_path)
