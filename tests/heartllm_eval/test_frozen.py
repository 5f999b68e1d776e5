from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import DataError, HeartLLMError, UsageError
from heartllm_eval import cli, frozen, frozen_arrays
from heartllm_eval.models.controls import Majority
from heartllm_eval.planning import RunSpec
from heartllm_eval.records import read_record
from heartllm_eval.runner import run
from heartllm_eval.schema import Difference, Figure, RunRecord
from heartllm_eval.scoring import Options, correct_for_many
from heartllm_eval.testing import Echo

FEW = Options(resamples=200)
Make = Callable[..., Path]


@pytest.fixture
def make(spec: RunSpec, tmp_path: Path) -> Make:
    """Makes a run folder of a model that is wrong on every so manyth request, with its controls."""

    def build(name: str = "run", wrong_every: int = 4, **changes: Any) -> Path:
        chosen = replace(spec, output=tmp_path / name, **{"controls": True, **changes})
        run(
            chosen,
            lambda system, context: Majority(context) if system.kind == "majority" else Echo(wrong_every=wrong_every),
        )
        return chosen.output

    return build


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same(ours: Figure | Difference, theirs: Figure | Difference) -> bool:
    left, right = asdict(ours), asdict(theirs)
    return left.keys() == right.keys() and all(
        value == right[key] or (isinstance(value, float) and value == pytest.approx(right[key], abs=1e-12, rel=0))
        for key, value in left.items()
    )


def test_the_numbers_are_those_of_the_run(make: Make, tmp_path: Path) -> None:
    record: RunRecord = read_record(make())
    (folder,) = frozen.freeze(tmp_path / "run", tmp_path / "frozen")
    found = frozen.figures(frozen.read(folder), options=FEW)
    some = frozen.read(folder, only={"jaccard.strict"})
    assert [metric.name for metric in some.metrics] == ["jaccard.strict"]
    assert len(found.figures) == len(record.figures) > 100
    assert all(same(ours, theirs) for ours, theirs in zip(found.figures, record.figures, strict=True))
    corrected = correct_for_many(found.differences)
    assert len(corrected) == len(record.differences) > 3
    assert all(same(ours, theirs) for ours, theirs in zip(corrected, record.differences, strict=True))


def test_the_bytes_are_the_same_again_and_few(make: Make, tmp_path: Path) -> None:
    make()
    frozen.freeze(tmp_path / "run", tmp_path / "one")
    frozen.freeze(tmp_path / "run", tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    size = (tmp_path / "one" / "invented_qa" / frozen.STATISTICS_FILE).stat().st_size
    assert size < 6000


def test_no_text_answer_or_id_is_kept(make: Make, tmp_path: Path) -> None:
    make()
    frozen.freeze(tmp_path / "run", tmp_path / "frozen")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "frozen").rglob("*") if path.is_file())
    requests = [json.loads(line) for line in (tmp_path / "run" / "invented_qa" / "requests.jsonl").open()]
    for request in requests:
        for text in (request["id"], request["cluster"], request["question"], request["background"]):
            assert text.encode() not in kept
    for text in ("normal heart axis", "lead aVR", "no idea", str(tmp_path)):
        assert text.encode() not in kept
        assert text.encode("utf-32-le") not in kept


def test_of_credentialed_data_only_the_type_of_a_question_is_kept(make: Make, tmp_path: Path) -> None:
    make()
    for path in (tmp_path / "run" / "run.json",):
        data = json.loads(path.read_text())
        data["tasks"]["invented_qa"]["dataset"] = "mimic"
        path.write_text(json.dumps(data))
    frozen.freeze(tmp_path / "run", tmp_path / "frozen")
    found = frozen.read(tmp_path / "frozen" / "invented_qa")
    assert {request.question_type for request in found.requests} == {"single-verify", "single-choose", "single-query"}
    assert all(not request.slices for request in found.requests)


def test_runs_of_the_same_questions_share_the_samples(make: Make, tmp_path: Path) -> None:
    make("a", 4), make("b", 3)
    (tmp_path / "frozen" / "samples").mkdir(parents=True)
    frozen.freeze(tmp_path / "a", tmp_path / "frozen" / "ours" / "seed-0")
    frozen.freeze(tmp_path / "b", tmp_path / "frozen" / "theirs" / "seed-0" / "invented_qa")
    assert len(list((tmp_path / "frozen" / "samples").iterdir())) == 1
    folders = frozen.find(tmp_path / "frozen")
    assert [path.relative_to(tmp_path / "frozen").as_posix() for path in folders] == [
        "ours/seed-0/invented_qa",
        "theirs/seed-0/invented_qa",
    ]
    first, second = map(frozen.read, folders)
    assert [request.id for request in first.requests] == [request.id for request in second.requests]
    right = [part.system("model").statistics["exact_match.strict"][:, 0].sum() for part in (first, second)]
    assert right == [108, 96]


@pytest.mark.parametrize("name", ["statistics.npz", "run.json", "samples"])
def test_what_was_changed_is_refused(make: Make, tmp_path: Path, name: str) -> None:
    make()
    (folder,) = frozen.freeze(tmp_path / "run", tmp_path / "frozen")
    path = next(
        path for path in folder.iterdir() if path.name == name or (name == "samples" and path.name.startswith("inv"))
    )
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match="hash differs"):
        frozen.read(folder)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        frozen.read(folder)


def test_other_versions_and_places_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no frozen run"):
        frozen.read(tmp_path)
    make()
    (folder,) = frozen.freeze(tmp_path / "run", tmp_path / "frozen")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(DataError, match="version 99"):
        frozen.read(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "samples": "../x.npz"}))
    with pytest.raises(DataError, match="samples file"):
        frozen.read(folder)
    with pytest.raises(UsageError, match="no task"):
        frozen.freeze(tmp_path / "run", tmp_path / "frozen", tasks=["other"])
    with pytest.raises(HeartLLMError):
        frozen.freeze(tmp_path / "nothing", tmp_path / "frozen")


def test_unfinished_runs_are_refused(make: Make, tmp_path: Path) -> None:
    make(predict_only=True)
    with pytest.raises(DataError, match="score it"):
        frozen.freeze(tmp_path / "run", tmp_path / "frozen")


def test_a_system_that_was_not_run(make: Make, tmp_path: Path) -> None:
    make(controls=False)
    (folder,) = frozen.freeze(tmp_path / "run", tmp_path / "frozen")
    with pytest.raises(UsageError, match="no system 'blind'"):
        frozen.read(folder).system("blind")


def test_packing_keeps_every_number() -> None:
    generator = np.random.default_rng(0)
    for rows in (generator.normal(size=(300, 4)), generator.integers(0, 9, (50, 7)) * 1.0, np.zeros((0, 3))):
        packed = frozen_arrays.pack([rows, 2 * rows])
        arrays = {f"m/{name}": array for name, array in packed.items()}
        found = frozen_arrays.unpack(arrays, "m")
        assert np.array_equal(found, np.stack([rows, 2 * rows]))


def test_the_command(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", "freeze", str(tmp_path / "run"), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "144 samples of 2 systems" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "out" / "invented_qa" / "run.json").is_file()
