"""A key is in the environment and nowhere else: in no record, message, cache or sample."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import DataError
from heartllm_eval import cli, runner

KEY = 'sk-very"secret\\0123456789-abcdefghijklmnopqrstuvwxyz'
PASSWORD = "hunter2-hunter2"

Answer = Callable[[], tuple[int, bytes]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, serve: Any) -> dict[str, Any]:
    """A server that says what `state["answer"]` gives."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    state: dict[str, Any] = {}

    def answer(asked: Any) -> tuple[int, dict[str, str], bytes]:
        state["sent"] = asked.headers["Authorization"]
        code, payload = state["answer"]()
        return code, {"Content-Type": "application/json"}, payload

    state["url"] = serve(answer) + "/v1"
    return state


def everything(folder: Path) -> str:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def parts_of(key: str) -> list[str]:
    """The key, as JSON writes it, and any piece of it that would help somebody."""
    return [key, json.dumps(key)[1:-1], *(key[start : start + 12] for start in range(0, len(key) - 12, 4))]


def test_a_server_that_repeats_the_key(server: dict[str, Any], spec: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In an answer, in an error, inside JSON, and across the place where a message is cut."""
    args = {"base_url": server["url"], "model": "m", "summary": "false", "first_wait": "0.001", "retries": "0"}
    said = {"choices": [{"message": {"content": f"your key is {KEY}"}}]}
    errors = [json.dumps({"error": {"message": "x" * fill + KEY}}).encode() for fill in range(100, 161, 5)]
    odd = [json.dumps({"odd": ["x" * fill + KEY]}).encode() for fill in range(100, 161, 5)]
    number = count()

    def answer() -> tuple[int, bytes]:
        turn = next(number)
        if turn in (20, 90):
            return 400, errors[turn % len(errors)]
        return 200, odd[turn % len(odd)] if turn % 40 == 5 else json.dumps(said).encode()

    server["answer"] = answer
    spec = replace(spec, model="openai", model_args=args, cache=spec.output.parent / "cache", verbosity=1)
    assert runner.run(spec).status == "done"
    assert server["sent"] == f"Bearer {KEY}"
    seen = everything(spec.output.parent) + "".join(capsys.readouterr())
    assert "your key is ***" in seen
    for part in parts_of(KEY):
        assert part not in seen
    server["answer"] = lambda: (500, errors[7])
    with pytest.raises(DataError) as caught:
        runner.run(replace(spec, output=spec.output.with_name("failing"), cache=None))
    seen = everything(spec.output.parent) + str(caught.value) + "".join(capsys.readouterr())
    for part in parts_of(KEY):
        assert part not in seen


@pytest.mark.parametrize(
    "argument",
    [
        f"base_url=http://user:{PASSWORD}@127.0.0.1:9/v1",
        f"base_url=http://127.0.0.1:9/v1?key={PASSWORD}",
        f"base_url=http://127.0.0.1:9/v1,key_env={PASSWORD}",
        f"base_url=http://127.0.0.1:9/v1,key_env=sk_{PASSWORD.replace('-', '_')}",
        f"base_url=http://127.0.0.1:9/v1,api_key={PASSWORD}",
    ],
)
def test_a_secret_in_the_arguments_is_in_no_record(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before anything is written, and not repeated."""
    out = tmp_path / "run"
    command = ["heartllm-eval", "run", "-M", "openai", "-a", f"{argument},model=m", "-t", "ptbxl_qa", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = "".join(capsys.readouterr())
    assert "error: " in said
    assert PASSWORD not in said
    assert PASSWORD.replace("-", "_") not in said
    assert not out.exists()


def test_the_environment_is_in_no_record(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartllm_eval.testing import Echo

    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, PASSWORD)
    runner.run(spec, lambda system, context: Echo())
    assert PASSWORD not in everything(spec.output.parent)
