"""What `heartllm-eval run` refuses before anything is loaded, and with which words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from heartllm_eval import cli

RUN = ["run", "-M", "gold", "-t", "ptbxl_qa_genuine", "--verbosity", "0"]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-b", "0"], 2, "--batch_size: '0' is no batch size"),
        (["-b", "many"], 2, "Write a number such as 16, or auto"),
        (["-o", "FILE/run"], 1, "cannot write there"),
        (["--dry_run", "-o", "FILE/run"], 1, "cannot write there"),
        (["--num_processes", "2", "-o", "FILE/run"], 1, "cannot write there"),
        (["--include_path", "FILE/none"], 2, "no such file or folder"),
    ],
)
def test_wrong_options_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    (tmp_path / "FILE").write_text("")
    given = [part.replace("FILE", str(tmp_path / "FILE")) for part in arguments]
    output = [] if "-o" in given else ["-o", str(tmp_path / "run")]
    assert command(monkeypatch, *RUN, "--data_root", str(tmp_path), *output, *given) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_processes_of_another_launcher_need_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(monkeypatch, *RUN) == 2
    assert "several processes need one folder" in capsys.readouterr().err
    assert command(monkeypatch, *RUN, "-o", "x", "--num_processes", "2") == 2
    assert "started by two launchers" in capsys.readouterr().err
