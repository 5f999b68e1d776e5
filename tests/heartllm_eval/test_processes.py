from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import UsageError
from heartllm.launched import World
from heartllm_eval.processes import locked, share
from heartllm_eval.testing import invented_requests

SCRIPT = Path(__file__).with_name("slow_run.py")


def launched(count: int, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--launch", str(count), str(out), "0.001", *more], capture_output=True, text=True
    )


def record(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))


def samples(out: Path) -> Path:
    return out / "invented_qa" / "model" / "samples.jsonl"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_shares_are_whole_groups_and_together_everything(size: int) -> None:
    requests = invented_requests("test", patients=7)
    shares = [share(requests, World(rank, size)) for rank in range(size)]
    assert sorted(request.id for part in shares for request in part) == sorted(request.id for request in requests)
    for part in shares:
        for request in part:
            assert sum(other.record_ids == request.record_ids for other in part) == 3
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 3


def test_any_number_of_processes_gives_the_same_samples_and_scores(tmp_path: Path) -> None:
    outs = {count: tmp_path / str(count) for count in (1, 2, 3)}
    for count, out in outs.items():
        done = launched(count, out)
        assert done.returncode == 0, done.stderr
    first = record(outs[1])
    assert len(samples(outs[1]).read_bytes().splitlines()) == 186
    for count, out in outs.items():
        told = record(out)
        assert told["settings"]["world_size"] == count
        assert told["status"] == "done"
        for part in ("config", "tasks", "systems", "figures", "signatures"):
            assert told[part] == first[part], part
        assert samples(out).read_bytes() == samples(outs[1]).read_bytes()
        assert [path.name for path in samples(out).parent.iterdir()] == ["samples.jsonl"]


def test_a_process_that_fails_ends_the_others_and_another_number_goes_on(tmp_path: Path) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    failed = launched(3, out, "1", "7")
    assert failed.returncode == 1
    assert "the model fell over" in failed.stderr
    assert "process 1 of 3 ended with exit code 1" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert record(out)["status"] == "error"
    assert "process 1 of 3" in record(out)["error"]
    assert len((out / "invented_qa" / "model" / "samples.1.jsonl").read_bytes().splitlines()) == 7
    assert launched(2, out).returncode == 0
    assert launched(1, whole).returncode == 0
    assert record(out)["resumed"] == 1
    assert samples(out).read_bytes() == samples(whole).read_bytes()
    assert record(out)["figures"] == record(whole)["figures"]


def test_a_folder_of_another_run_is_left_alone_by_all(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert launched(1, out).returncode == 0
    told = record(out)
    told["config"]["seed"] = 7
    (out / "run.json").write_text(json.dumps(told))
    refused = launched(2, out)
    assert refused.returncode == 2
    assert "seed: 7 -> 0" in refused.stderr
    assert record(out) == told


def test_processes_end_with_their_killed_launcher(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, str(SCRIPT), "--launch", "2", str(out), "0.05"])
    while not (out / "invented_qa" / "model" / "samples.1.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    until = time.monotonic() + 10

    def held(rank: int) -> bool:
        try:
            with locked(out, World(rank, 2), wait=0.0):
                return False
        except UsageError:
            return True

    while any(held(rank) for rank in (0, 1)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path, World()),
        pytest.raises(UsageError, match="another run is writing there"),
        locked(tmp_path, World(), wait=0.0),
    ):
        pass
    with locked(tmp_path, World(), wait=0.0):
        pass


def test_sigterm_leaves_an_interrupted_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(out), "0.05"], stderr=subprocess.PIPE, text=True)
    while not (samples(out).exists() and samples(out).stat().st_size):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert "interrupted" in process.communicate()[1]
    assert process.returncode == 130
    assert record(out)["status"] == "interrupted"


PYTHON = (sys.executable, "-m")
ACCELERATE = ("accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")


def started(data_root: Path, out: Path, *launcher: str, more: tuple[str, ...] = ()) -> str:
    """Runs a suite of real questions through a launcher and gives what it said on stderr."""
    run = ["run", "-M", "gold", "-t", "ptbxl_qa_genuine", "--data_root", str(data_root), "--confidence_n", "100"]
    done = subprocess.run(
        [*PYTHON, *launcher, *(("-m", "heartllm_eval") if launcher else ("heartllm_eval",)), *run, "-o", out, *more],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("count", "launcher", "more"),
    [
        (3, (), ("--num_processes", "3")),
        (2, ("torch.distributed.run", "--nproc_per_node", "2"), ()),
        (3, (*ACCELERATE, "--multi_gpu", "--num_processes", "3", "--main_process_port", "0"), ()),
    ],
    ids=["--num_processes", "torchrun", "accelerate"],
)
def test_the_command_line_starts_several(
    data_root: Path, tmp_path: Path, count: int, launcher: tuple[str, ...], more: tuple[str, ...]
) -> None:
    for part in launcher[:1]:
        pytest.importorskip(part)
    started(data_root, tmp_path / "one")
    started(data_root, tmp_path / "several", *launcher, more=more)
    one, several = (tmp_path / name / "ptbxl_qa_genuine" / "model" / "samples.jsonl" for name in ("one", "several"))
    assert several.read_bytes() == one.read_bytes()
    told = record(tmp_path / "several")
    assert told["settings"]["world_size"] == count
    assert told["figures"] == record(tmp_path / "one")["figures"]
    assert next(figure for figure in told["figures"] if figure["slice"] == "all")["value"] == 100.0


@pytest.mark.real_data
def test_accelerate_on_a_cpu_starts_one_and_we_say_so(data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip(ACCELERATE[0])
    said = started(data_root, tmp_path / "run", *ACCELERATE, "--cpu", "--num_processes", "2")
    assert "accelerate launch --cpu has started one process only; give it --multi_gpu" in said
    assert record(tmp_path / "run")["settings"]["world_size"] == 1
