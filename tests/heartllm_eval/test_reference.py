"""The reference checkpoint on real recordings: the same answers whatever the batch, the process, the cache."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartllm_eval import cli
from heartllm_eval.models import base
from heartllm_eval.processes import World, share
from heartllm_eval.requests import Workspace, build_requests, limit_requests
from heartllm_eval.schema import Request
from heartllm_eval.suite import select

pytest.importorskip("torch")
pytestmark = [pytest.mark.real_data, pytest.mark.model]

CHECKPOINT = Path(__file__).resolve().parents[2] / "reports" / "reference" / "checkpoint"
COUNTS = {"ptbxl_qa": 60, "ptbxl_reports": 8, "ptbxl_comparison": 24}


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of ECG codes for all: the codec is not what is tested."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _checkpoint_is_there() -> None:
    if not (CHECKPOINT / "manifest.json").is_file():
        pytest.skip("the reference checkpoint is not here")


@cache
def planned(data_root: Path, name: str) -> tuple[Workspace, list[Request]]:
    workspace = Workspace([data_root])
    requests = limit_requests(build_requests(select([name])[0], workspace), COUNTS[name], 0)
    if name == "ptbxl_comparison":  # few, and all of one question: each pair of ECGs is asked others as well
        asked = list(dict.fromkeys(request.question for request in planned(data_root, "ptbxl_qa")[1]))
        numbers = range(COUNTS[name] // len(requests))
        requests = [
            replace(request, id=f"{request.id}-{number}", question=asked[row * len(numbers) + number])
            for row, request in enumerate(requests)
            for number in numbers
        ]
    return workspace, requests


def answers(
    data_root: Path, codes: Path, name: str, batch: int, *, auto: bool = False, world: World | None = None
) -> dict[str, str]:
    workspace, requests = planned(data_root, name)
    context = base.Context(workspace, batch_size=batch, auto_batch=auto, cache=codes)
    adapter = base.create("heartllm", {"checkpoint": str(CHECKPOINT), "threads": "1"}, context)
    assert adapter.describe()["dtype"] == "float32"
    task = replace(base.task_of(select([name])[0], requests, workspace), score_options=False)
    found = list(adapter.predict(share(requests, world or World()), task))
    assert all(prediction.error is None for prediction in found)
    return {prediction.id: prediction.text for prediction in found}


@pytest.mark.parametrize("name", COUNTS)
def test_greedy_answers_do_not_depend_on_the_batch(data_root: Path, codes: Path, name: str) -> None:
    one = answers(data_root, codes, name, 1)
    assert len(one) == COUNTS[name]
    assert len(set(one.values())) > 2
    assert answers(data_root, codes, name, 7) == one
    assert answers(data_root, codes, name, 32) == one
    assert answers(data_root, codes, name, 32, auto=True) == one


def test_greedy_answers_do_not_depend_on_the_number_of_processes(data_root: Path, codes: Path) -> None:
    one = answers(data_root, codes, "ptbxl_qa", 16)
    for size in (2, 3):
        shares = [answers(data_root, codes, "ptbxl_qa", 16, world=World(rank, size)) for rank in range(size)]
        assert all(shares)
        assert {key: text for part in shares for key, text in part.items()} == one


def test_running_out_of_memory_changes_no_answer(data_root: Path, codes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartllm.language.generation import Asked, Generator

    one, whole, sizes = answers(data_root, codes, "ptbxl_qa", 1), Generator._answer_group, list[int]()

    def small(self: Generator, group: list[Asked], max_new_tokens: int) -> list[str]:
        sizes.append(sum(len(asked.items) for asked in group))
        if sizes[-1] > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return whole(self, group, max_new_tokens)

    monkeypatch.setattr(Generator, "_answer_group", small)
    assert answers(data_root, codes, "ptbxl_qa", 32, auto=True) == one
    assert sizes[:4] == [32, 16, 8, 4]
    assert max(sizes[3:]) <= 4


def test_dry_run_tells_prompts_tokens_and_time_and_asks_nothing_for_good(data_root: Path, tmp_path: Path) -> None:
    arguments = [
        "run",
        "-M",
        "heartllm",
        "-a",
        f"checkpoint={CHECKPOINT}",
        "--no_controls",
        "--dry-run",
        "--probe",
        "2",
    ]
    told = CliRunner().invoke(
        cli.app, [*arguments, "-t", "ptbxl_comparison", "--data_root", str(data_root), "-w", "--verbosity", "0"]
    )
    assert told.exit_code == 0, told.output
    assert "<|start_ecg|>[313 codes]<|end_ecg|><|start_ecg|>[313 codes]<|end_ecg|>Question: What numeric" in told.output
    assert "--- expected: " in told.output
    assert "ptbxl_comparison/model: about " in told.output
    lengths = [line for line in told.output.splitlines() if "prompt tokens, the longest prompt" in line]
    assert len(lengths) == 1
    assert 640 < int(lengths[0].split("the longest prompt ")[1].split(";")[0]) < 800
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_and_a_run_are_validated(data_root: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "run"
    assert "every file as its manifest says" in runner.invoke(cli.app, ["validate", str(CHECKPOINT)]).output
    arguments = ["run", "-M", "heartllm", "-a", f"checkpoint={CHECKPOINT}", "--no_controls", "-t", "ptbxl_comparison"]
    arguments += ["--data_root", str(data_root), "--verbosity", "0", "-b", "auto", "--use_cache", str(tmp_path / "c")]
    assert runner.invoke(cli.app, [*arguments, "-o", str(out)]).exit_code == 0
    assert "a whole run of 6 answers" in runner.invoke(cli.app, ["validate", str(out)]).output
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["batch_size"] == "auto"
    assert record["data"]["ptbxl"]["recordings"] == 12
    again = tmp_path / "again"
    assert runner.invoke(cli.app, [*arguments, "-o", str(again)]).exit_code == 0
    second = json.loads((again / "run.json").read_text(encoding="utf-8"))
    assert second["settings"]["answers_from_cache"] == {"ptbxl_comparison/model": 6}
    assert second["figures"] == record["figures"]
    samples = out / "ptbxl_comparison" / "model" / "samples.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:-1]))
    spoilt = runner.invoke(cli.app, ["validate", str(out)])
    assert spoilt.exit_code != 0
    assert "1 samples are missing" in str(spoilt.exception)
