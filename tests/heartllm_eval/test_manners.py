"""Small courtesies of the command lines: exit codes, pipes, retries that are told, nothing left behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import heartllm
from heartllm.errors import CheckpointError, DataError, UsageError, absent, run_command_line
from heartllm.locks import locked
from heartllm_eval import cli, runner
from heartllm_eval.models import base
from heartllm_eval.models.chat_client import ChatClient, RequestFailed, Retrying
from heartllm_eval.requests import Workspace
from heartllm_eval.testing import Echo

PROGRAMS = {"heartllm-eval": "heartllm_eval.cli", "heartllm": "heartllm.cli"}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def start(program: str, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    code = f"from {PROGRAMS[program]} import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, **how)


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_version_and_completion(program: str) -> None:
    with start(program, "--version", stdout=subprocess.PIPE) as process:
        assert process.communicate()[0].decode() == f"heartllm {heartllm.__version__}\n"
    with start(program, "--help", stdout=subprocess.PIPE) as process:
        assert b"--install-completion" in process.communicate()[0]


@pytest.mark.parametrize(("program", "arguments"), [("heartllm-eval", ("ls",)), ("heartllm", ("--help",))])
def test_a_reader_that_goes_away(program: str, arguments: tuple[str, ...]) -> None:
    """As in `heartllm-eval ls | head -1`: no traceback, no "Broken pipe", and the exit code of other programs."""
    with start(program, *arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("score", "absent.jsonl", "-r", "absent.jsonl"), 2),
        (("score", "wrong.jsonl", "-r", "wrong.jsonl"), 1),
        (("score", "empty", "-r", "wrong.jsonl"), 2),
        (("validate", "absent.jsonl"), 2),
        (("validate", "absent.toml"), 2),
        (("validate", "wrong.jsonl"), 1),
        (("tables", "absent"), 2),
        (("freeze", "absent", "-o", "x"), 2),
        (("export", "absent", "-o", "x"), 2),
        (("compare", "absent", "absent"), 2),
        (("run", "-M", "predictions", "-a", "path=absent.jsonl", "-t", "no_such_suite"), 2),
        (("ls", "--no_such_option"), 2),
    ],
)
def test_one_rule_of_exit_codes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    """2: the command is wrong, a path that is not there included. 1: what is there is wrong."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.jsonl").write_text("{")
    (tmp_path / "empty").mkdir()
    assert command(monkeypatch, *arguments) == code


def test_recordings_and_checkpoints_follow_the_rule(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from heartllm.checkpoint import verify
    from heartllm.ecg import read_recording
    from heartllm.untrusted import read_object

    for read, kind in ((read_recording, DataError), (verify, CheckpointError), (read_object, CheckpointError)):
        for name in ("absent", *(("absent.csv", "absent.npy", "absent.hea") if read is read_recording else ())):
            with pytest.raises(kind) as caught:
                read(tmp_path / name)  # type: ignore[operator]
            assert caught.value.exit_code == 2, name
    with pytest.raises(CheckpointError) as caught:
        verify(tmp_path)
    assert caught.value.exit_code == 1
    assert DataError("x", remedy="y").exit_code == 1
    assert absent(DataError("x", remedy="y")).exit_code == 2


def test_an_error_of_ours_still_ends_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UsageError("wrong", remedy="Mend it.")

    with pytest.raises(SystemExit) as end:
        run_command_line(fail)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: wrong. Mend it.\n"


@pytest.mark.parametrize("name", ["out", "new/out"])
def test_a_failed_score_leaves_no_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.jsonl").write_text('{"id": "1", "answer": ["yes"]}\n')
    (tmp_path / "p.jsonl").write_text('{"id": "other", "prediction": "yes"}\n')
    assert command(monkeypatch, "score", "p.jsonl", "-r", "r.jsonl", "-o", name) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "r.jsonl"]
    (tmp_path / "out").mkdir()
    assert command(monkeypatch, "score", "p.jsonl", "-r", "r.jsonl", "-o", "out") == 1
    assert (tmp_path / "out").is_dir()  # it was there before


@pytest.mark.parametrize(("rows", "told"), [(2, "1 id comes twice: 1"), (3, "2 ids come twice: 1, 2")])
def test_what_comes_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [str(number) for number in range(1, rows)]
    (tmp_path / "r.jsonl").write_text("".join(f'{{"id": "{key}", "answer": ["yes"]}}\n' for key in ids))
    (tmp_path / "p.jsonl").write_text("".join(f'{{"id": "{key}", "prediction": "yes"}}\n' for key in ids * 2))
    (tmp_path / "twice.jsonl").write_text("".join(f'{{"id": "{key}", "answer": ["yes"]}}\n' for key in ids * 2))
    assert command(monkeypatch, "score", "p.jsonl", "-r", "r.jsonl") == 1
    assert told in capsys.readouterr().err
    assert command(monkeypatch, "score", "p.jsonl", "-r", "twice.jsonl") == 1
    assert told in capsys.readouterr().err


def test_labels_without_the_folders_path(
    spec: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [replace(spec, output=tmp_path / part / "mine") for part in ("a", "b")]
    for run in runs:
        runner.run(run, lambda system, context: Echo())
    assert command(monkeypatch, "tables", *(run.output for run in runs), "--format", "latex") == 0
    labels = re.findall(r"\\label\{tab:([^}]*)\}", capsys.readouterr().out)
    assert labels
    assert len(set(labels)) == len(labels)
    assert all(label.startswith("mine-invented-questions") for label in labels)


def test_a_repeated_run_stays_finished(spec: Any) -> None:
    """Whoever looks meanwhile, or after a kill, finds the finished record; one that has work to do says so."""
    runner.run(spec, lambda system, context: Echo())
    path = spec.output / "run.json"
    before = path.read_text()
    seen = []

    class Looking(Echo):
        def describe(self) -> Any:
            seen.append(json.loads(path.read_text())["status"])
            return super().describe()

    runner.run(spec, lambda system, context: Looking())
    assert seen == ["done"]
    assert json.loads(path.read_text())["resumed"] == 1

    class Stopped(Echo):
        def describe(self) -> Any:
            raise KeyboardInterrupt

    path.write_text(before)
    with pytest.raises(KeyboardInterrupt):
        runner.run(spec, lambda system, context: Stopped())
    assert path.read_text() == before
    samples = next(spec.output.rglob("samples.jsonl"))
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-3]))
    runner.run(spec, lambda system, context: Looking())
    assert seen == ["done", "running"]


def test_two_processes_in_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock", where=tmp_path):
        began = time.monotonic()
        with (
            pytest.raises(UsageError, match="another run is writing there"),
            locked(tmp_path / ".lock", where=tmp_path, wait=0.3),
        ):
            pass
        assert time.monotonic() - began >= 0.3
    with locked(tmp_path / ".lock", where=tmp_path):
        pass


def test_a_dead_server_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never took a connection is tried three times, each with the time left and how to shorten it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    said: list[str] = []
    client = ChatClient("http://127.0.0.1:1/v1", key=None, retrying=Retrying(6, 0.01), tell=said.append)
    with pytest.raises(RequestFailed, match=r"refused.*\(3 attempts\)"):
        client.complete({})
    assert len(said) == 2
    assert all(
        re.search(r"trying again in \d+ s \(retry \d of 2; gives up in about \d+ s; -a retries=N", s) for s in said
    )
    with pytest.raises(RequestFailed):
        client.complete({})
    assert len(said) == 2  # the same again within a minute is not told again
    assert Retrying(6, 1.0).left(0, 6) == 2 + 4 + 8 + 16 + 32
    client = ChatClient("http://127.0.0.1:1/v1", key=None, retrying=Retrying(4, 0.01), tell=said.append)
    client._met = True  # it has answered before: it may be starting again
    with pytest.raises(RequestFailed, match=r"\(5 attempts\)"):
        client.complete({})


def test_help_tells_how_to_shorten_it() -> None:
    with start("heartllm-eval", "run", "--help", stdout=subprocess.PIPE) as process:
        shown = " ".join(process.communicate()[0].decode().split())
    assert "retries=1,first_wait=0.5,timeout=20" in shown


def test_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from heartllm_eval.testing import invented_requests

    args = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "summary": "false", "first_wait": "0.001"}
    adapter = base.create("openai", args, base.Context(Workspace()))
    requests = invented_requests("test", patients=2)
    with pytest.raises(DataError, match="retries=0 gives up at once"):
        list(adapter.predict(requests, base.Task("t", "qa", requests)))
