"""A disk that is full, and one that cannot be written to: real ones, where this system lets us mount a small one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heartllm_eval.samples import read_samples

SCRIPT = Path(__file__).with_name("slow_run.py")


def run_on(options: str, tmp_path: Path, before: str = "true", after: str = "true") -> subprocess.CompletedProcess[str]:
    """Runs on a tmpfs with these mount options, in a mount namespace of its own, and copies what is left to "kept"."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    inside = f"mount -t tmpfs -o {options} none {disk}"
    if not shutil.which("unshare") or subprocess.run([*mount, inside], capture_output=True).returncode:
        pytest.skip("this system does not let a test mount a disk")
    run = f"{sys.executable} {SCRIPT} {disk}/run 0"
    script = f"{inside} && {before}; {run} && {after}; code=$?; cp -r {disk} {kept}; exit $code"
    return subprocess.run([*mount, script], capture_output=True, text=True)


def test_a_disk_that_becomes_full(tmp_path: Path) -> None:
    done = run_on("size=128k", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    assert "the same command continues" in done.stderr
    run = tmp_path / "kept" / "run"
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "error"
    finished = list(read_samples(run / "invented_qa" / "model" / "samples.jsonl"))
    assert 0 < len(finished) < 186
    whole = subprocess.run([sys.executable, str(SCRIPT), str(run), "0"], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (told["status"], told["error"], told["resumed"]) == ("done", None, 1)


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    done = run_on("size=16k", tmp_path, before=f"head -c 100k /dev/zero > {tmp_path}/disk/fill 2>/dev/null")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    done = run_on("ro", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot write there (Read-only file system)" in done.stderr
    assert "Choose another folder" in done.stderr


def test_scoring_once_more_on_a_full_disk_keeps_the_record(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    fill = f"head -c 9M /dev/zero > {disk}/fill 2>/dev/null"
    score = f"{sys.executable} -m heartllm_eval score {disk}/run --verbosity 0"
    done = run_on("size=1m", tmp_path, after=f"cp {disk}/run/run.json {tmp_path}; {fill}; {score}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot write there (No space left on device)" in done.stderr
    kept = tmp_path / "kept" / "run"
    assert (kept / "run.json").read_bytes() == (tmp_path / "run.json").read_bytes()
    assert not list(kept.rglob("*.part"))
