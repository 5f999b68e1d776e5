from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.config import read_toml
from heartllm.data.records import NOISE_KINDS, Labels
from heartllm.data.synthetic.writing import write_site
from heartllm.errors import DataError, UsageError
from heartllm_eval.requests import Workspace, build_requests, limit_requests, noted_quality, parse_limit
from heartllm_eval.schema import dumps, ids_hash, request_from_json, requests_hash
from heartllm_eval.suite import Prompt, Suite, read_suite, select, suite_files
from heartllm_eval.testing import invented_requests

REQUESTS = invented_requests("test", patients=30)


@pytest.mark.parametrize(("text", "limit"), [("200", 200), ("1", 1), ("0.1", Fraction(1, 10)), ("1.0", Fraction(1))])
def test_limits(text: str, limit: int | Fraction) -> None:
    found = parse_limit(text)
    assert found == limit
    assert type(found) is type(limit)


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "200.0", "ten", "", "nan", "1/0"])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--limit"):
        parse_limit(text)


@given(st.integers(1, 200), st.integers(0, 5))
def test_a_limited_set_is_exact_stratified_and_ordered(count: int, seed: int) -> None:
    chosen = limit_requests(REQUESTS, count, seed)
    assert len(chosen) == min(count, len(REQUESTS))
    positions = [REQUESTS.index(request) for request in chosen]
    assert positions == sorted(set(positions))
    sizes = Counter(request.question_type for request in chosen)
    assert max(sizes.values()) - min(sizes.values() if len(sizes) == 3 else [0]) <= 1
    assert limit_requests(list(reversed(REQUESTS)), count, seed)[::-1] == chosen


def test_a_limited_set_depends_on_the_seed_and_grows() -> None:
    few, many = (limit_requests(REQUESTS, count, 0) for count in (30, 60))
    assert {request.id for request in few} < {request.id for request in many}
    assert limit_requests(REQUESTS, 30, 1) != few
    assert len(limit_requests(REQUESTS, Fraction(1, 10), 0)) == 18


def test_requests_survive_json() -> None:
    import json

    for request in REQUESTS[:5]:
        assert request_from_json(json.loads(dumps(request))) == request
    with pytest.raises(ValueError, match="needs a text 'id'"):
        request_from_json({"kind": "qa"})
    with pytest.raises(ValueError, match="'options' must be a list of texts"):
        request_from_json({"id": "1", "kind": "qa", "options": "yes"})


def test_hashes_tell_order_from_membership() -> None:
    assert ids_hash(REQUESTS) == ids_hash(REQUESTS[::-1])
    assert requests_hash(REQUESTS) != requests_hash(REQUESTS[::-1])


def test_bundled_suites_are_sound() -> None:
    assert set(suite_files()) >= {
        "ptbxl_qa", "ptbxl_reports", "synthetic_a_qa", "synthetic_a_reports", "synthetic_b_qa", "synthetic_b_reports",
    }  # fmt: skip
    for path in suite_files().values():
        suite = read_suite(path)
        assert suite.synthetic == suite.dataset.startswith("synthetic")
        assert ("synthetic recordings" in suite.caption) == suite.synthetic
        if suite.kind == "qa":
            assert suite.questions.source in suite.caption
    assert [suite.name for suite in select(["synthetic", "ptbxl_qa", "synthetic_a_qa"])][-1] == "ptbxl_qa"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('metrics = ["exact_match.strct"]', r"unknown metric 'exact_match.strct'. Did you mean 'exact_match.strict'"),
        ('slices = ["sexx"]', r"unknown slice 'sexx'; did you mean 'sex'"),
        ("titel = 1", r"unknown key 'titel'. Did you mean 'title'"),
        ('kind = "question"', "kind"),
        ("[questions]\nper_cel = 3", r"Did you mean 'per_cell'"),
        ('primary = "bleu.standard"', "is not among the metrics"),
    ],
)
def test_bad_suites_are_named(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    kind = "" if change.startswith("kind") else 'kind = "qa"\n'
    path.write_text(f'version = 1\nname = "mine"\ntitle = "T"\n{kind}dataset = "ptbxl"\n{change}\n')
    with pytest.raises(UsageError, match=message):
        read_suite(path)


def test_suites_of_ones_own_are_found_and_take_precedence(tmp_path: Path) -> None:
    text = suite_files()["ptbxl_qa"].read_text()
    (tmp_path / "ptbxl_qa.toml").write_text(text.replace('title = "', 'title = "My '))
    assert select(["ptbxl_qa"], [tmp_path])[0].title.startswith("My ")
    with pytest.raises(UsageError, match="no such file or folder"):
        suite_files([tmp_path / "none"])
    with pytest.raises(UsageError, match="Did you mean 'ptbxl_qa'"):
        select(["ptbxl-qa"])


def test_a_suite_without_data_tells_what_is_missing(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give --data_root DIR or set HEARTLLM_DATA"):
        build_requests(suite, Workspace())
    with pytest.raises(UsageError, match="no such folder"):
        build_requests(suite, Workspace([tmp_path / "none"]))
    with pytest.raises(DataError):
        build_requests(suite, Workspace([tmp_path]))


WELL_FORMED = 'version = 1\nname = "mine"\ntitle = "T"\nkind = "qa"\ndataset = "ptbxl"\n'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[reader]\nlength = "cropp"', r"reader: length: unknown value 'cropp'. Did you mean 'crop'"),
        ("[prompt]\noption = true", r"unknown key 'option'. Did you mean 'options'"),
        ('[questions]\nsource = "genuine"\necgs = 3', r"questions.ecgs is 3"),
        ("[questions]\necgs = 2", r"needs source = 'genuine'"),
        ('cluster = "patents"', r"unknown value 'patents'. Did you mean 'patient'"),
        ('slices = ["devise"]', r"did you mean 'device'"),
        ("[generation]\nmax_new_token = 3", r"Did you mean 'max_new_tokens'"),
    ],
)
def test_bad_pins_of_a_suite_are_named(tmp_path: Path, more: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(f"{WELL_FORMED}{more}\n")
    with pytest.raises(UsageError, match=message):
        read_suite(tmp_path / "mine.toml")


@pytest.mark.parametrize("path", suite_files().values(), ids=lambda path: path.stem)
def test_every_bundled_suite_pins_what_decides_its_numbers(path: Path) -> None:
    written, suite = read_toml(path), read_suite(path)
    assert written.keys() >= {"version", "split", "metrics", "primary", "slices", "cluster", "reader", "prompt"}
    assert written["reader"].keys() == {"length", "nan_policy"}
    assert written["prompt"].keys() == {"features", "options"}
    assert written["generation"].keys() == {"max_new_tokens"}
    if suite.kind == "qa":
        assert written["questions"].keys() >= {"source", "paraphrase"}
        assert set(suite.slices) >= {"question_type", "attribute_type"}
    assert set(suite.slices) >= {"sex", "age", "device"}


def test_groups_of_suites() -> None:
    names = [suite.name for suite in select(["comparison"])]
    assert names == [f"{name}_comparison{w}" for name in ("mimic", "ptbxl") for w in ("", "_paraphrased")]
    assert len(select(["ecgqa"])) == 8
    assert all(suite.questions.source == "genuine" for suite in select(["ecgqa"]))


def test_noise_as_the_dataset_notes_it() -> None:
    kinds = dict.fromkeys(NOISE_KINDS, frozenset[str]())
    assert noted_quality(Labels(noise=kinds)) == "clean"
    assert noted_quality(Labels(noise={**kinds, NOISE_KINDS[0]: frozenset({"V1"})})) == "noise noted"
    assert noted_quality(Labels(noise={NOISE_KINDS[0]: frozenset()})) == "unknown"
    assert noted_quality(Labels()) == "unknown"


def row(template: int, kind: str, ecgs: list[int], answer: list[str], attribute: list[str] | None) -> dict[str, Any]:
    return {
        "template_id": template, "question_id": 1, "sample_id": 1, "question_type": kind, "attribute_type": "scp_code",
        "question": f"Question of template {template}?", "answer": answer, "ecg_id": ecgs, "attribute": attribute,
    }  # fmt: skip


@pytest.mark.parametrize("wording", ["template", "paraphrased"])
def test_mimic_suites_read_ecg_qas_layout(tmp_path: Path, wording: str) -> None:
    """On synthetic recordings in MIMIC-IV-ECG's file layout, with question files in ECG-QA's."""
    write_site("b", tmp_path, recordings=12, seed=3, workers=1).rename(tmp_path / "mimic")
    studies = [int(entry.record_id) for entry in Workspace([tmp_path]).entries("mimic")]
    folder = tmp_path / "ecgqa" / "mimic-iv-ecg" / wording / "test"
    folder.mkdir(parents=True)
    classes = "template_id,classes\n1,\"['no', 'not sure', 'yes']\"\n57,\"['no', 'yes']\"\n"
    (folder.parents[1] / "answers_for_each_template.csv").write_text(classes)
    rows = [
        row(1, "single-verify", studies[:1], ["yes"], ["sinus rhythm"]),
        row(57, "comparison_irrelevant-verify", studies[1:3], ["no"], ["sinus rhythm"]),
        row(57, "comparison_irrelevant-verify", [studies[1], 999], ["no"], ["sinus rhythm"]),
    ]
    (folder / "00000.json").write_text(json.dumps(rows))
    ending = "" if wording == "template" else "_paraphrased"
    workspace = Workspace([tmp_path])
    (one,) = build_requests(select([f"mimic_qa_genuine{ending}"])[0], workspace)
    (two,) = build_requests(select([f"mimic_comparison{ending}"])[0], workspace)
    assert one.record_ids == (str(studies[0]),)
    assert one.options == ("no", "not sure", "yes")
    assert two.record_ids == tuple(map(str, studies[1:3]))
    assert two.options == ("no", "yes")
    splits = {entry.record_id: entry.split for entry in workspace.entries("mimic")}
    elsewhere = {
        suite: sum(splits[i] != "test" for i in part.record_ids) for suite, part in (("one", one), ("two", two))
    }
    assert sum(elsewhere.values()) > 0  # the files' split is not the dataset's own, and that is told
    found = {"one": f"mimic_qa_genuine{ending}", "two": f"mimic_comparison{ending}"}
    assert workspace.other_split == {found[suite]: count for suite, count in elsewhere.items() if count}
    assert workspace.left_out == {f"mimic_qa_genuine{ending}": 0, f"mimic_comparison{ending}": 1}
    assert build_requests(replace(select(["mimic_qa"])[0], split="train"), workspace)
    assert build_requests(replace(select(["mimic_reports"])[0], split="train"), workspace)


@pytest.mark.real_data
def test_comparisons_show_two_ecgs(data_root: Path) -> None:
    workspace = Workspace([data_root])
    template, paraphrased = (
        build_requests(select([name])[0], workspace) for name in ("ptbxl_comparison", "ptbxl_comparison_paraphrased")
    )
    assert len(template) == len(paraphrased) == 6
    for request in template:
        assert request.question_type.startswith("comparison")
        assert len(set(request.record_ids)) == 2
        assert set(request.references) <= set(request.options)
        assert request.background.startswith("First ECG: ")
        assert " Second ECG: " in request.background
        assert not request.derived
    assert {request.question for request in template}.isdisjoint(request.question for request in paraphrased)
    assert [request.record_ids for request in template] == [request.record_ids for request in paraphrased]


@pytest.mark.real_data
def test_prompts_may_list_the_options_and_leave_out_the_patient(data_root: Path) -> None:
    workspace, suite = Workspace([data_root]), select(["ptbxl_qa_genuine"])[0]
    plain = build_requests(suite, workspace)
    changed = build_requests(replace(suite, prompt=Prompt(features=False, options=True)), workspace)
    assert [request.id for request in plain] == [request.id for request in changed]
    for before, after in zip(plain, changed, strict=True):
        assert before.background
        assert not after.background
        assert after.question == f"{before.question} Options: {'; '.join(before.options)}."


@pytest.mark.real_data
def test_real_requests(data_root: Path) -> None:
    workspace = Workspace([data_root])
    asked = build_requests(select(["ptbxl_qa"])[0], workspace)
    assert len({request.id for request in asked}) == len(asked) > 1000
    assert {request.question_type for request in asked} == {"single-verify", "single-choose", "single-query"}
    assert all(request.derived and request.references and request.options for request in asked)
    assert all(set(request.references) <= {*request.options, "none"} for request in asked)
    again = build_requests(select(["ptbxl_qa"])[0], Workspace([data_root]))
    assert requests_hash(again) == requests_hash(asked)
    training = build_requests(select(["ptbxl_qa"])[0], workspace, split="train")
    assert not {request.cluster for request in training} & {request.cluster for request in asked}
    reports = build_requests(select(["ptbxl_reports"])[0], workspace)
    assert len(reports) == 119
    genuine = build_requests(select(["ptbxl_qa_genuine"])[0], workspace)
    assert genuine
    assert not any(request.derived for request in genuine)
