"""Zero-shot or not: held against what a checkpoint says it was trained on, by hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.codec.store import fingerprint
from heartllm.data.records import Entry
from heartllm.errors import DataError
from heartllm_eval.exposure import exposure, split_hashes, stated_training, warning
from heartllm_eval.models.base import task_of
from heartllm_eval.planning import RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.runner import run
from heartllm_eval.suite import Questions, Suite, select
from heartllm_eval.tables import system_line
from heartllm_eval.testing import Echo

SPLITS = {"train": ["1", "2", "10"], "test": ["3"]}


class Entries(Workspace):
    """Datasets with the same ids in each, as the synthetic sites have; "nowhere" is absent."""

    def dataset(self, name: str) -> Any:
        if name == "nowhere":
            raise DataError("not here", remedy="")

        class Found:
            root = Path("not-here")

            def entries(self, split: str | None = None) -> list[Entry]:
                return [Entry(key, key, name, Path(key), split=split) for key in SPLITS.get(split or "", [])]

        return Found()


def trained(name: str, split: str = "train", views: int = 4) -> str:
    return f"{name}:{fingerprint([name, views, *sorted(SPLITS[split])])}"


def test_the_hash_is_the_token_stores() -> None:
    for views in (1, 4, 16):
        assert fingerprint(["ptbxl", views, "1", "10", "2"]) in split_hashes("ptbxl", ["10", "2", "1"])
    assert fingerprint(["ptbxl", 4, "1", "2"]) not in split_hashes("ptbxl", ["10", "2", "1"])


@pytest.mark.parametrize(
    ("stated", "status", "words"),
    [
        (None, "unknown", "does not say"),
        ([], "unknown", "does not say"),
        ([trained("ptbxl")], "in-distribution", "trained on the train split of ptbxl, by the hash"),
        ([trained("mimic"), trained("ptbxl", views=8)], "in-distribution", "train split of ptbxl"),
        ([trained("ptbxl", "test")], "seen", "trained on the test split of ptbxl"),
        (["ptbxl:" + "0" * 64], "unclear", "but not on the training split that is here"),
        (["mimic:" + "0" * 64], "zero-shot", "trained on mimic and on nothing of ptbxl"),
    ],
)
def test_by_hash_not_by_name(suite: Suite, stated: list[str] | None, status: str, words: str) -> None:
    found = exposure(suite, stated, Entries())
    assert found.status == status
    assert words in found.why
    assert (warning(suite, found) is None) == (status != "seen")


def test_the_same_split_under_another_name_is_noticed(suite: Suite) -> None:
    found = exposure(suite, [trained("mine")], Entries())
    assert (found.status, "calls mine" in found.why) == ("in-distribution", True)


def test_a_zero_shot_suite_warns_of_a_model_that_is_not(suite: Suite) -> None:
    meant = replace(suite, zero_shot_from=("synthetic-a",))
    assert "meant to be zero-shot" in str(warning(meant, exposure(meant, [trained("ptbxl")], Entries())))
    clean = exposure(meant, ["synthetic-a:0", "georgia:0"], Entries())
    assert clean.status == "zero-shot"
    assert "more than the suite means" in clean.why
    assert warning(meant, clean) is None
    absent = replace(suite, dataset="nowhere")
    assert exposure(absent, ["nowhere:0"], Entries()).status == "unclear"
    assert exposure(absent, ["other:0"], Entries()).status == "zero-shot"


def test_a_checkpoint_is_read_without_loading_it(tmp_path: Path) -> None:
    assert stated_training(tmp_path) == ()
    (tmp_path / "checkpoint.toml").write_text('data = ["ptbxl:0"]\n')
    assert stated_training(tmp_path) == ("ptbxl:0",)


def test_run_json_says_so(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stating(Echo):
        def describe(self) -> Mapping[str, Any]:
            return {"trained_on": [trained("ptbxl")]}

    monkeypatch.setattr("heartllm_eval.runner.Workspace", Entries)
    suite = replace(spec.suites[0], zero_shot_from=("mimic",))
    run(replace(spec, suites=(suite,)), lambda system, context: Stating())
    record = json.loads((spec.output / "run.json").read_text())
    told = record["systems"]["model"]["training"]["invented_qa"]
    assert (told["status"], told["trained_on"]) == ("in-distribution", ["ptbxl"])
    assert "meant to be zero-shot" in record["settings"]["notes"][0]
    assert "invented_qa: in-distribution" in system_line(record["systems"]["model"])
    assert record["tasks"]["invented_qa"]["zero_shot_from"] == ["mimic"]


def test_controls_of_a_zero_shot_suite_learn_from_its_sources(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def build(part: Suite, workspace: Workspace, *, split: str | None = None) -> list[Any]:
        asked.append((part.dataset, split))
        return []

    monkeypatch.setattr("heartllm_eval.models.base.build_requests", build)
    task_of(suite, [], Workspace()).training()
    task_of(replace(suite, zero_shot_from=("synthetic-a", "mimic")), [], Workspace()).training()
    assert asked == [("ptbxl", "train"), ("synthetic-a", "train"), ("mimic", "train")]


def test_zero_shot_suites_name_other_datasets() -> None:
    suites = select(["zero-shot"])
    assert {suite.dataset for suite in suites} >= {"georgia", "chapman-ningbo", "cpsc2018", "ptbxl", "synthetic-b"}
    assert all(suite.zero_shot_from and suite.dataset not in suite.zero_shot_from for suite in suites)
    assert all("zero-shot from" in suite.title for suite in suites)


def test_impossible_zero_shot_suites_are_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match="the suite's own dataset"):
        replace(suite, zero_shot_from=("ptbxl",))
    with pytest.raises(ValueError, match="needs derived questions"):
        replace(suite, zero_shot_from=("mimic",), questions=Questions(source="genuine"))


@pytest.mark.real_data
def test_the_reference_checkpoint_and_the_other_sites(data_root: Path) -> None:
    """Its three data sets are found by hash; the other hospitals are zero-shot and can be asked about."""
    from heartllm_eval.requests import build_requests

    workspace, folder = Workspace([data_root]), Path(__file__).resolve().parents[2] / "reports" / "reference"
    stated = stated_training(folder / "checkpoint")
    own, *others = select(["ptbxl_qa", "georgia_qa", "chapman_ningbo_qa", "cpsc2018_qa"])
    assert exposure(own, stated, workspace).status == "in-distribution"
    for suite in others:
        assert exposure(suite, stated, workspace).status == "zero-shot"
        requests = build_requests(suite, workspace)
        assert {request.template_id for request in requests} == {1}
        assert {request.references for request in requests} == {("yes",), ("no",)}
