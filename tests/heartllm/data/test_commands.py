"""`heartllm data ...` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from heartllm.data.commands import data_app
from heartllm.errors import run_command_line


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = 0
    try:
        run_command_line(lambda: data_app([str(argument) for argument in arguments]))
    except SystemExit as left:
        code = int(left.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with twenty recordings of each synthetic site."""
    from heartllm.data.synthetic import write_site

    folder = tmp_path_factory.mktemp("root")
    for site in ("a", "b"):
        write_site(site, folder, recordings=20, seed=1, workers=1)
    return folder


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("HEARTLLM_DATA", raising=False)


@pytest.mark.parametrize("command", ["list", "check", "synth", "questions", "agreement", "splits", "leakage"])
def test_every_command_explains_itself_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"heartllm data {command}" in " ".join(out.split())


def test_list_and_check(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, _ = run(capsys, "list", "--data_root", root)
    assert code == 0
    assert "synthetic-b" in out
    assert "not here (ptbxl/)" in out
    code, out, _ = run(capsys, "check", "synthetic-b", "--data-root", root)
    assert (code, "20 recordings of 16 patients, 0 unreadable" in out) == (0, True)


def test_check_lists_bad_recordings_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "synth", "a", "--out", tmp_path, "-n", 5, "-j", 1)[0] == 0
    short = sorted((tmp_path / "synthetic-a").rglob("*.dat"))[2]
    short.write_bytes(short.read_bytes()[:100])
    code, out, err = run(capsys, "check", "synthetic-a", "--data_root", tmp_path)
    assert code == 1
    assert short.stem.removesuffix("_hr") in out
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert run(capsys, "check", "synthetic-a", "--data_root", tmp_path, "--max_bad_share", 0.2)[0] == 0


def test_questions_and_splits_write_files(capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.json"
    code, _, _ = run(capsys, "questions", "synthetic-a", "--data_root", root, "--per_cell", 3, "--out", out)
    rows = json.loads(out.read_text())
    assert code == 0
    assert rows
    assert all(row["derived"] for row in rows)
    code, _, _ = run(capsys, "splits", "synthetic-a", "--data_root", root, "--out", tmp_path / "m.json")
    assert (code, json.loads((tmp_path / "m.json").read_text())["dataset"]) == (0, "synthetic-a")


def test_leakage_fails_where_a_test_recording_is_learnt_from(
    capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    assert run(capsys, "leakage", "synthetic-a", "--data_root", root)[0] == 0
    from heartllm.data import open_dataset

    test = next(entry.record_id for entry in open_dataset("synthetic-a", root).entries() if entry.split != "train")
    (tmp_path / "ids.txt").write_text(f"{test}\n")
    code, out, err = run(
        capsys, "leakage", "synthetic-a", "--data_root", root, "--group", f"codec/pretrain={tmp_path / 'ids.txt'}"
    )
    assert (code, "LEAK" in out, test in out) == (1, True, True)
    assert "codec/pretrain" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["list"], 2, "HEARTLLM_DATA"),
        (["list", "--data_root", "/no/such/folder"], 2, "does not exist"),
        (["check", "ptblx", "--data_root", "."], 2, "Did you mean 'ptbxl'"),
        (["check", "ptbxl", "--data_root", "."], 1, "ptbxl"),
        (["synth", "c", "--out", "."], 2, "'c'"),
        (["leakage", "ptbxl", "--data_root", "."], 1, "is not here"),
    ],
)
def test_bad_usage_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, *arguments)
    assert found == code
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_help_loads_neither_torch_nor_wfdb() -> None:
    import subprocess

    program = "import sys, heartllm.data.commands, heartllm.data.questions; print({'torch', 'wfdb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
