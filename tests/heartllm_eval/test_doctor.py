"""`heartllm-eval doctor`: what is there, what is not, and what to do about it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heartllm_eval import cli, doctor

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTLLM_DATA", raising=False)
    monkeypatch.setattr(doctor, "_accelerator", lambda: iter(()))  # torch takes seconds, and is tried once below


def looked(*roots: Path) -> dict[str, doctor.Look]:
    return {part.name: part for part in doctor.look(roots)}


def test_a_whole_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTLLM_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = looked()
    assert found["Python"].state == found["scoring"].state == found["cache"].state == "ok"
    assert found["data"].state == "note"
    assert "heartllm data synth" in found["data"].remedy
    for part in found.values():
        assert (part.state == "ok") == (part.remedy == ""), part
    result = RUNNER.invoke(cli.app, ["doctor"])
    assert result.exit_code == 0
    assert "-> Let --data_root or HEARTLLM_DATA name a folder" in result.output


def test_key_files_and_their_hashes(tmp_path: Path) -> None:
    (tmp_path / "ptbxl").mkdir()
    (tmp_path / "ptbxl" / "ptbxl_database.csv").write_bytes(b"ecg_id\n")
    (tmp_path / "mimic").mkdir()
    (tmp_path / "other_sites" / "georgia").mkdir(parents=True)
    found = looked(tmp_path)
    digest = hashlib.sha256(b"ecg_id\n").hexdigest()[:16]
    assert found["ptbxl/ptbxl_database.csv"].found == f"sha256 {digest}, 7 bytes"
    assert found["mimic"].state == "note"
    assert "record_list.csv" in found["mimic"].remedy
    assert found["other_sites"].found == "georgia"


def test_what_is_missing_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = RUNNER.invoke(cli.app, ["doctor", "--data_root", str(tmp_path / "absent"), "--json"])
    assert result.exit_code == 1
    told = {part["name"]: part for part in json.loads(result.output)}
    assert told["data"] == {
        "name": "data",
        "state": "missing",
        "found": f"{tmp_path / 'absent'} is no folder",
        "remedy": told["data"]["remedy"],
    }
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("nltk", "wfdb") else there(name))
    found = looked()
    assert found["scoring"].state == "missing"
    assert found["scoring"].found == "lacks nltk"
    assert found["checkpoints, training"].state == "note"
    assert "pip install 'heartllm[model]'" in found["checkpoints, training"].remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("HEARTLLM_CACHE", str(tmp_path / "cache"))
    assert looked()["cache"].state == "missing"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "_writable", lambda folder: folder != tmp_path)
    found = looked()["cache"]
    assert found.state == "missing"
    assert "HEARTLLM_CACHE" in found.remedy
    assert not (tmp_path / "cache").exists()  # looking changes nothing


def test_little_memory_and_disk_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_available_mb", lambda: 100)
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 1 << 60)
    found = looked()
    assert found["memory"].state == found["this folder"].state == "note"
    assert "--batch_size" in found["memory"].remedy


@pytest.mark.model
def test_torch_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = {part.name: part for part in doctor._accelerator()}
    assert found["threads"].state == found["GPU"].state == "ok"

    def broken(name: str) -> Any:
        raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    (found_broken,) = doctor._accelerator()
    assert found_broken.state == "missing"
    assert "libcudart" in found_broken.found


def test_ls_as_json() -> None:
    rows = json.loads(RUNNER.invoke(cli.app, ["ls", "--json"]).output)
    assert {"name", "what", "split", "primary metric", "tags"} == set(rows[0])
    assert "ptbxl_qa" in {row["name"] for row in rows}
