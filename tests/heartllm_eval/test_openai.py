"""The `openai` adapter against servers on loopback that fail in every way a server can."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval import runner
from heartllm_eval.models import base
from heartllm_eval.models.chat_client import Pace, Retrying, checked_address, completion_text, retry_after
from heartllm_eval.models.openai import OpenAI
from heartllm_eval.planning import RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.testing import invented_requests

KEY = "sk-very-secret-0123456789"
CONTEXT = base.Context(Workspace(), seed=7)


def reply(text: str) -> tuple[int, dict[str, str], bytes]:
    data = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return 200, {"Content-Type": "application/json"}, json.dumps(data).encode()


Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Server:
    """A server whose `answer` decides what to say to request number n; it keeps what it was asked, and when."""

    answer: Callable[[int, dict[str, Any]], Reply] = lambda number, body: reply("yes")
    trickle: float = 0.0  # seconds between the bytes of the first reply
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, serve: Any) -> Server:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    state = Server()

    def answer(asked: Any) -> tuple[int, dict[str, str], Any]:  # a followed redirect would arrive as a GET
        body = json.loads(asked.body)
        with state.lock:
            number = len(state.bodies)
            state.bodies.append(body)
            state.headers.append(asked.headers)
            state.paths.append(asked.path)
            state.times.append(time.monotonic())
            state.busy += 1
            state.most_busy = max(state.most_busy, state.busy)
        code, headers, payload = state.answer(number, body)
        with state.lock:
            state.busy -= 1
        headers = {**headers, "Content-Length": str(len(payload))}
        return code, headers, slowly(payload, state.trickle) if state.trickle and number == 0 else payload

    state.url = serve(answer) + "/v1"
    return state


def slowly(payload: bytes, seconds: float) -> Iterator[bytes]:
    for byte in payload:
        yield bytes([byte])
        time.sleep(seconds)


def ask(
    server: Server, requests: Sequence[Request] | None = None, *, context: base.Context = CONTEXT, **args: str
) -> dict[str, Prediction]:
    requests = invented_requests("test", patients=2) if requests is None else requests
    given = {"base_url": server.url, "model": "m", "summary": "false", "first_wait": "0.01", **args}
    adapter = base.create("openai", given, context)
    task = base.Task("t", requests[0].kind, requests, max_new_tokens=12)
    return {prediction.id: prediction for prediction in adapter.predict(requests, task)}


def test_what_is_sent(server: Server) -> None:
    server.answer = lambda number, body: reply(" yes \n")
    found = ask(server, concurrency="1")
    requests = invented_requests("test", patients=2)
    assert {part.text for part in found.values()} == {"yes"}
    assert set(found) == {request.id for request in requests}
    body = server.bodies[0]
    assert {name: body[name] for name in ("model", "temperature", "seed", "max_tokens")} == {
        "model": "m",
        "temperature": 0,
        "seed": 7,
        "max_tokens": 12,
    }
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    user = body["messages"][1]["content"]
    assert "Patient: Age: 61 years." in user
    assert "Question: Question 0?" in user
    assert user.endswith("exactly one of these options, as it is written: no; not sure; yes")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.paths[0] == "/v1/chat/completions"
    adapter: Any = base.create("openai", {"base_url": server.url, "model": "m", "summary": "false"}, CONTEXT)
    shown = adapter.prompt(requests[0], base.Task("t", "qa", requests))
    assert shown == "\n\n".join(str(message["content"]) for message in body["messages"])
    assert not any(request.record_ids[0] in json.dumps(body) for request in requests for body in server.bodies)


def test_fields_can_be_left_out_and_renamed(server: Server) -> None:
    ask(server, omit="seed+temperature", token_field="max_completion_tokens", max_tokens="5", options="false")
    assert set(server.bodies[0]) == {"model", "messages", "max_completion_tokens"}
    assert server.bodies[0]["max_completion_tokens"] == 5
    assert "not sure; yes" not in server.bodies[0]["messages"][1]["content"]


def test_no_key_no_header(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(server)
    assert "Authorization" not in server.headers[0]
    monkeypatch.setenv("OTHER_KEY", "other")
    ask(server, key_env="OTHER_KEY")
    assert server.headers[-1]["Authorization"] == "Bearer other"


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {}, b"oops"),
        (503, {"Content-Type": "text/html"}, b"<html><body>Service unavailable</body></html>"),
        (429, {"Retry-After": "0"}, b'{"error": {"message": "slow down"}}'),
        (200, {"Content-Type": "text/html"}, b"<html><title>Login</title></html>"),
        (200, {"Content-Type": "application/json"}, b'{"choices": [{"mess'),
        (200, {"Content-Type": "application/json"}, b'{"choices": []}'),
    ],
)
def test_passing_troubles_are_tried_again(server: Server, trouble: Reply) -> None:
    server.answer = lambda number, body: trouble if number < 2 else reply("no")
    found = ask(server, concurrency="1")
    assert {part.text for part in found.values()} == {"no"}
    assert len(server.bodies) == len(found) + 2


def test_waits_as_long_as_the_server_asks(server: Server) -> None:
    server.answer = lambda number, body: (429, {"Retry-After": "1"}, b"") if number == 0 else reply("no")
    ask(server, invented_requests("test", patients=1)[:1], first_wait="0.001")
    assert 0.95 <= server.times[1] - server.times[0] < 5


def test_a_server_that_hangs_is_tried_again(server: Server) -> None:
    def answer(number: int, body: dict[str, Any]) -> Reply:
        if number == 0:
            time.sleep(1.5)
        return reply("yes")

    server.answer = answer
    found = ask(server, timeout="0.3", concurrency="1")
    assert {part.text for part in found.values()} == {"yes"}


@pytest.mark.parametrize("code", [200, 500])
def test_a_server_that_trickles_is_tried_again(server: Server, code: int) -> None:
    server.answer = lambda number, body: (code, {}, b" " * 1000) if number == 0 else reply("yes")
    server.trickle = 0.05  # 50 s in all, but never long without a byte
    began = time.monotonic()
    found = ask(server, invented_requests("test", patients=1)[:1], timeout="0.4", concurrency="1")
    assert {part.text for part in found.values()} == {"yes"}
    assert time.monotonic() - began < 10
    server.bodies.clear()
    found = ask(server, invented_requests("test", patients=1), timeout="0.4", concurrency="1", retries="0")
    told = [part.error for part in found.values() if part.error]
    assert told == ["no reply within 0.4 s"] if code == 200 else told[0].startswith("the server answers 500")


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ((500, {}, b"oops"), r"the server answers 500 \(oops\) \(3 attempts\)"),
        ((200, {"Content-Type": "text/html"}, b"<html>hello</html>"), r"not JSON \(text/html: <html>hello</html>\)"),
        ((200, {"Content-Type": "application/json"}, b'{"choices": 3}'), "the reply is no chat completion"),
    ],
)
def test_a_lasting_trouble_fails_its_sample_only(server: Server, trouble: Reply, told: str) -> None:
    requests = invented_requests("test", patients=4)

    def answer(number: int, body: dict[str, Any]) -> Reply:
        return trouble if "Question 2?" in body["messages"][1]["content"] else reply("yes")

    server.answer = answer
    found = ask(server, requests, retries="2")
    failed = [found[request.id] for request in requests if request.question == "Question 2?"]
    assert len(failed) == 8
    for part in failed:
        assert part.text == ""
        assert re.search(told, str(part.error)), part.error
    assert all(found[request.id].error is None for request in requests if request.question != "Question 2?")


def test_a_refused_request_is_not_tried_again(server: Server) -> None:
    message = json.dumps({"error": {"message": f"too long; key {KEY}"}}).encode()
    server.answer = lambda number, body: (400, {}, message) if number == 1 else reply("yes")
    found = ask(server, concurrency="1")
    errors = [part.error for part in found.values() if part.error]
    assert errors == ["the server answers 400 (too long; key ***)"]
    assert len(server.bodies) == len(found)


def test_the_run_ends_when_the_first_requests_all_fail(server: Server) -> None:
    server.answer = lambda number, body: (500, {}, b"")
    with pytest.raises(DataError, match=r"the first 3 requests all failed; the last: the server answers 500"):
        ask(server, invented_requests("test", patients=20), retries="0", give_up_after="3", concurrency="1")
    assert len(server.bodies) <= 5
    with pytest.raises(DataError, match="the first 1 requests all failed"):
        ask(server, invented_requests("test", patients=1)[:1], retries="0")


def test_a_server_that_is_not_there(server: Server) -> None:
    server.url = "http://127.0.0.1:1/v1"
    with pytest.raises(DataError, match=r"127.0.0.1:1/v1/chat/completions.*no connection \(.*refused"):
        ask(server, retries="0", give_up_after="1")


@pytest.mark.parametrize(
    ("code", "headers", "told"),
    [
        (401, {}, "refuses the key"),
        (404, {}, r"answers 404 \(no such model\).*Check base_url"),
        (307, {"Location": "http://127.0.0.1:1/v1"}, "another address, which is not followed"),
        (302, {"Location": "http://127.0.0.1:1/v1"}, "another address, which is not followed"),
    ],
)
def test_what_all_requests_would_meet_ends_the_run_at_once(
    server: Server, code: int, headers: dict[str, str], told: str
) -> None:
    server.answer = lambda number, body: (code, headers, b'{"error": {"message": "no such model"}}')
    with pytest.raises(DataError, match=told):
        ask(server, concurrency="1")
    assert len(server.bodies) == 1


def test_pace_and_concurrency(server: Server) -> None:
    requests = invented_requests("test", patients=2)
    began = time.monotonic()
    ask(server, requests, requests_per_minute="600", concurrency="4")
    # A busy machine delays arrivals, the first one too: each is held against its turn, which no load brings forward.
    late = [arrived - began - 0.1 * turn for turn, arrived in enumerate(sorted(server.times))]
    assert len(late) == len(requests)
    assert min(late) >= 0

    def slow(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.1)
        return reply("yes")

    server.answer, server.most_busy = slow, 0
    ask(server, requests, concurrency="3")
    assert 2 <= server.most_busy <= 3


def test_leaving_early_ends_the_threads(server: Server) -> None:
    server.answer = lambda number, body: reply("yes") if number == 0 else (503, {"Retry-After": "60"}, b"")
    given = {"base_url": server.url, "model": "m", "summary": "false", "concurrency": "2"}
    adapter = base.create("openai", given, CONTEXT)
    requests = invented_requests("test", patients=3)
    answers = iter(adapter.predict(requests, base.Task("t", "qa", requests)))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("ask-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a thread waits on"
        time.sleep(0.02)


def run_files(folder: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_key_is_written_nowhere(
    server: Server, spec: RunSpec, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in run.json, samples, tables, logs or messages: neither of a good run nor of one whose server repeats it."""
    caplog.set_level(logging.DEBUG)
    args = {"base_url": server.url, "model": "m", "summary": "false", "first_wait": "0.001", "retries": "1"}
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    server.answer = lambda number, body: (429, {}, echo) if number in (7, 8) else reply("yes")
    spec = replace(spec, model="openai", model_args=args, verbosity=2)
    record = runner.run(spec)
    assert record.status == "done"
    for number, code in enumerate((500, 401, 404)):
        server.answer = lambda number, body, code=code: (code, {}, echo)  # type: ignore[misc]
        failing = replace(spec, output=spec.output.with_name(f"failing{number}"))
        with pytest.raises(DataError) as caught:
            runner.run(failing)
        assert KEY not in str(caught.value)
    seen = run_files(spec.output.parent) + caplog.text + "".join(capsys.readouterr())
    assert "openai" in seen
    assert KEY not in seen
    adapter = base.create("openai", args, CONTEXT)
    assert isinstance(adapter, OpenAI)
    assert KEY not in repr(adapter) + repr(adapter._client) + str(adapter.describe())


def test_answers_are_cached_and_failures_asked_again(
    server: Server, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "recording_hash", lambda self, name, record: record)
    args = {"base_url": server.url, "model": "m", "summary": "false", "first_wait": "0.001", "retries": "0"}
    spec = replace(spec, model="openai", model_args=args, cache=tmp_path / "cache")
    server.answer = lambda number, body: (500, {}, b"") if number in (20, 21) else reply("yes")
    runner.run(spec)
    asked = len(server.bodies)
    runner.run(replace(spec, output=tmp_path / "again"))
    assert len(server.bodies) == asked + 2
    runner.run(replace(spec, output=tmp_path / "shuffled", model_args={**args, "ecg": "shuffled"}))
    assert len(server.bodies) == 2 * asked + 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"base_url": "ftp://x/v1"}, "no http or https address"),
        ({"base_url": "localhost:8000"}, "no http or https address"),
        ({"base_url": "http://user:secret@x/v1"}, "holds credentials"),
        ({"base_url": "http://x/v1?api_key=secret"}, "holds credentials or a query"),
        ({"timeout": "0"}, "timeout='0'.*a number from 0.01"),
        ({"concurrency": "1.5"}, "concurrency='1.5'.*a whole number from 1 to 256"),
        ({"requests_per_minute": "0"}, "Leave it out"),
        ({"requests_per_minute": "nan"}, "Write a number from 0"),
        ({"omit": "top_p"}, "omit='top_p'.*temperature, seed"),
        ({"token_field": "max"}, "max_tokens, max_completion_tokens"),
        ({"image": "maybe"}, "image=true or image=false"),
        ({"ecg": "off"}, "ecg='off'"),
        ({"key_env": "NO_SUCH_KEY"}, "no such environment variable"),
        ({"api_key": "x"}, "openai takes no argument 'api_key'"),
    ],
)
def test_bad_arguments_are_named(args: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        base.create("openai", {"base_url": "http://127.0.0.1:1/v1", "model": "m", **args}, CONTEXT)
    assert "secret" not in str(caught.value)


def test_small_parts() -> None:
    assert retry_after({"Retry-After": "3"}) == 3
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=lambda: 90.0) == 10
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None
    assert Retrying(first_wait=1.0).wait(3, None) <= 12
    assert Retrying(first_wait=1.0).wait(0, 30.0) == 30
    assert Retrying(first_wait=1.0).wait(60, 1e9) == 120
    assert completion_text(b'{"choices": [{"message": {"content": null}}]}') == ""
    for bad in (b"", b"[]", b"[" * 100_000, b'{"choices": [{"message": {"content": 3}}]}'):
        with pytest.raises(ValueError, match="the reply"):
            completion_text(bad)
    assert completion_text(b'{"choices": [{"text": " yes"}]}', chat=False) == " yes"
    with pytest.raises(ValueError, match="the reply is no completion"):
        completion_text(b'{"choices": [{"message": {"content": "yes"}}]}', chat=False)
    assert checked_address("https://api.example.org/v1") == "https://api.example.org/v1"
    Pace(None).wait(threading.Event())


@pytest.mark.model
def test_measurements_and_image_are_shown_and_shuffled(server: Server) -> None:
    pytest.importorskip("matplotlib")
    from heartllm.data.synthetic import simulate

    requests = invented_requests("test", patients=3)
    recordings = {
        record: replace(simulate(1, index)[0], record_id=record)
        for index, record in enumerate(sorted({request.record_ids[0] for request in requests}))
    }

    class Drawn(Workspace):
        def read(self, name: str, record_id: str, reader: Any = None) -> Any:
            if record_id == "test2v1":
                raise DataError("the .dat file is short", where=record_id, remedy="Fetch it again.")
            return recordings[record_id]

    warnings: list[str] = []
    context = base.Context(Drawn(), warn=warnings.append)
    found = ask(server, requests, context=context, summary="true", image="true", concurrency="1")
    assert sorted(part.id for part in found.values() if part.error) == [f"test2v1-{number}" for number in range(3)]
    image, text = server.bodies[0]["messages"][1]["content"]
    data = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG")
    assert "Heart rate: " in text["text"]
    shown = {body["messages"][1]["content"][0]["image_url"]["url"] for body in server.bodies}
    assert len(shown) == 5

    true = [body["messages"][1]["content"][1]["text"] for body in server.bodies]
    server.bodies.clear()
    ask(server, requests[:-3], context=context, summary="true", ecg="shuffled", concurrency="1")
    shuffled = [body["messages"][1]["content"] for body in server.bodies]
    assert len(shuffled) == 15
    assert all(a != b for a, b in zip(shuffled, true, strict=True))
    assert {text.split("\n\n")[1] for text in shuffled} == {text.split("\n\n")[1] for text in true}
    server.bodies.clear()
    ask(server, requests[:3], context=context, summary="true", image="true", ecg="none")
    assert "Heart rate" not in server.bodies[0]["messages"][1]["content"]
