"""--perturb: what is asked about is shifted, what is learnt from is not, and every key and record says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.data.records import Entry
from heartllm.data.synthetic import simulate
from heartllm.errors import UsageError
from heartllm_eval.comparison.checks import check_suites
from heartllm_eval.comparison.sides import Side
from heartllm_eval.planning import AnotherRun, RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.runner import run
from heartllm_eval.schema import Request
from heartllm_eval.shift import Shift
from heartllm_eval.testing import Echo

ASKED = Request(id="x", kind="qa", dataset="ptbxl", record_ids=("1",))


class Simulated(Workspace):
    """Two recordings, "1" and "2", in files that hold their names."""

    folder: Path

    def entry(self, name: str, record_id: str) -> Entry:
        return Entry(record_id, record_id, name, self.folder / record_id)

    def dataset(self, name: str) -> Any:
        class Found:
            def read(self, entry: Entry, **options: Any) -> Any:
                return replace(simulate(1, int(entry.record_id))[0], record_id=entry.record_id, source=name)

        return Found()


def workspace(tmp_path: Path, *texts: str, seed: int = 0) -> Simulated:
    for name in "12":
        (tmp_path / f"{name}.dat").write_text(name)
    found = Simulated([], Shift.of(texts, seed))
    found.folder = tmp_path
    found.ask_about([ASKED])
    return found


def test_only_what_is_asked_about_is_shifted(tmp_path: Path) -> None:
    plain, shifted = workspace(tmp_path), workspace(tmp_path, "gain=2")
    assert np.allclose(shifted.read("ptbxl", "1").signal, 2 * plain.read("ptbxl", "1").signal)
    assert shifted.read("ptbxl", "1").notes[-1] == "perturbed: gain=2"
    assert np.array_equal(shifted.read("ptbxl", "2").signal, plain.read("ptbxl", "2").signal)
    assert np.array_equal(shifted.read("mimic", "1").signal, plain.read("mimic", "1").signal)


def test_caches_tell_shifted_recordings_apart(tmp_path: Path) -> None:
    def hashes(*texts: str, seed: int = 0) -> tuple[str, str]:
        found = workspace(tmp_path, *texts, seed=seed)
        return found.recording_hash("ptbxl", "1"), found.recording_hash("ptbxl", "2")

    plain = hashes()
    assert plain == (workspace(tmp_path).files_hash("ptbxl", "1"), workspace(tmp_path).files_hash("ptbxl", "2"))
    ways = (["noise=10dB"], ["noise=5dB"], ["noise=10dB", "gain=2"], ["gain=2", "noise=10dB"])
    different = [hashes("noise=10dB", seed=1), *(hashes(*way) for way in ways)]
    assert len({first for first, _ in (plain, *different)}) == 6
    assert {second for _, second in different} == {plain[1]}
    assert hashes("noise=10dB") == hashes("noise=white:10 dB")
    assert workspace(tmp_path, "gain=2").files_hash("ptbxl", "1") == plain[0]


def test_records_and_folders(spec: RunSpec) -> None:
    shifted = replace(spec, perturb=("noise=10dB", "swap=RA-LA"))
    run(shifted, lambda system, context: Echo())
    record = json.loads((spec.output / "run.json").read_text())
    assert record["config"]["perturb"] == ["noise=white:10dB", "swap=LA-RA"]
    about = record["tasks"]["invented_qa"]
    assert about["perturb"] == record["config"]["perturb"]
    assert about["title"].endswith("perturbed: noise=white:10dB, swap=LA-RA")
    assert "perturbed: noise=white:10dB" in (spec.output / "results.md").read_text()
    run(shifted, lambda system, context: Echo())  # the same command continues
    with pytest.raises(AnotherRun, match="perturb"):
        run(spec, lambda system, context: Echo())
    with pytest.raises(AnotherRun, match="perturb"):
        run(replace(spec, perturb=("noise=5dB",)), lambda system, context: Echo())


def test_a_plain_run_is_recorded_as_before(spec: RunSpec) -> None:
    run(spec, lambda system, context: Echo())
    record = json.loads((spec.output / "run.json").read_text())
    assert "perturb" not in record["config"]
    assert record["tasks"]["invented_qa"]["perturb"] == []


def test_a_comparison_says_that_the_ecgs_differ() -> None:
    def side(label: str, *texts: str) -> Any:
        about = {"version": 1, "kind": "qa", "dataset": "ptbxl", "split": "test", "perturb": list(texts)}
        return type("S", (), {"label": label, "tasks": {"t": about}, "suites": {}})()

    sides: list[Side] = [side("clean"), side("noisy", "noise=white:10dB")]
    assert check_suites(sides, "t") == [
        "t: the ECGs were shown differently: as they are to clean, noise=white:10dB to noisy."
    ]
    assert check_suites([side("a"), side("b")], "t") == []


def test_answers_that_were_given_already_cannot_be_perturbed() -> None:
    from heartllm_eval.commands.run import _perturbations

    with pytest.raises(UsageError, match="given already"):
        _perturbations(["gain=2"], "predictions")
    with pytest.raises(UsageError, match="no perturbation"):
        _perturbations(["wobble=2"], "gold")
    assert _perturbations(["gain=2.0"], "gold") == ("gain=2",)
