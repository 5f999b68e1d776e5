from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval import cli
from heartllm_eval.page import assemble, columns, ecgs
from heartllm_eval.page.assemble import page
from heartllm_eval.page.contents import Wanted, collect
from heartllm_eval.page.gather import gather
from heartllm_eval.schema import Request
from heartllm_eval.testing import invented_requests

MARKUP_OR_NETWORK = (
    *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"),
    *("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon"),
)
Make = Callable[..., Path]
Answers = Callable[..., Callable[[int, Request], str]]


class Elements(HTMLParser):
    """The elements of a page, with their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def scripts(self, kind: str | None) -> list[str]:
        pairs = zip(self.found, self.texts, strict=True)
        return [text for (tag, given), text in pairs if tag == "script" and given.get("type") == kind]


def make(*texts: str | Path, **wanted: Any) -> Elements:
    return Elements(page(collect(gather([str(text) for text in texts]), Wanted(**wanted))).decode("utf-8"))


def meta(elements: Elements) -> dict[str, Any]:
    (text,) = elements.scripts("application/json")
    found: dict[str, Any] = json.loads(text)
    return found


def chunk(elements: Elements, number: int) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(elements.scripts("text/plain")[number])))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", "view", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def requests() -> list[Request]:
    return invented_requests("test", 24)


@pytest.fixture
def run(write_run: Make, right_but: Answers, tmp_path: Path, requests: list[Request]) -> Path:
    return write_run(tmp_path / "a", requests, right_but(4))


def test_holds_tables_and_every_sample(run: Path, requests: list[Request]) -> None:
    elements = make(run)
    about = meta(elements)
    (table,) = about["tables"]
    assert table["columns"][0] == "system"
    assert table["rows"][0][:2] == ["model", "50.0 [40.0, 60.0]"]
    assert table["right"] == [False, True, True, True, True]
    assert any("resamples" in note for note in table["notes"])
    assert "`metric:exact_match.strict|invented`" in table["notes"]
    (task,) = about["tasks"]
    assert (task["samples"], task["systems"], task["binary"]) == (144, ["model", "majority"], True)
    index, texts = chunk(elements, task["index"]), chunk(elements, task["chunks"][0])
    assert index["systems"][0]["score"] == [0.0 if at % 4 == 0 else 100.0 for at in range(144)]
    assert [row["q"] for row in texts] == [request.question for request in requests]
    assert texts[1]["a"][0] == ["; ".join(requests[1].references), None, [100.0, 12.5]]


def test_confusion_tells_right_answers_apart_and_counts_others(run: Path, requests: list[Request]) -> None:
    index = chunk(elements := make(run), meta(elements)["tasks"][0]["index"])
    names = [index["classes"][number] for number in index["reference"]]
    assert names == [request.references[0].lower() for request in requests]
    given = [index["classes"][number] for number in index["systems"][0]["answer"]]
    assert given[:2] == ["no idea", names[1]]


def test_loads_nothing_and_names_its_own_script_and_style(run: Path) -> None:
    elements = make(run)
    for tag, given in elements.found:
        assert not {"src", "srcdoc", "srcset", "style", "action"} & given.keys(), tag
        assert not any(name.startswith("on") for name in given), given
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert (given.get("href") or "#").startswith("#")
    policy = next(given["content"] for _, given in elements.found if given.get("http-equiv")) or ""
    (script,) = elements.scripts(None)
    assert "default-src 'none'" in policy
    assert f"script-src '{assemble._hash(script)}'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_scripts_make_no_markup_from_strings() -> None:
    source = "".join(assemble._part(name) for name in assemble.SCRIPTS)
    for dangerous in MARKUP_OR_NETWORK:
        assert dangerous not in source
    listed = {path.name for path in Path(assemble.__file__).parent.iterdir() if path.suffix in (".js", ".css", ".html")}
    assert listed == {*assemble.SCRIPTS, *assemble.STYLES, assemble.TEMPLATE}


def test_what_a_model_said_is_data(
    write_run: Make, right_but: Answers, attacks: tuple[str, ...], tmp_path: Path, requests: list[Request]
) -> None:
    asked = [
        dataclasses.replace(part, question=attacks[at % 6], background=attacks[0]) for at, part in enumerate(requests)
    ]
    folder = write_run(
        tmp_path / "</script><script>alert(1)</script>".replace("/", "_"), asked, lambda at, _: attacks[at % 6]
    )
    elements = make(folder, title='</title><script>alert(1)</script>"')
    plain = make(write_run(tmp_path / "plain", requests, right_but(4)))
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in plain.found]
    assert elements.scripts(None) == plain.scripts(None)
    rows = chunk(elements, meta(elements)["tasks"][0]["chunks"][0])
    assert [row["a"][0][0] for row in rows[:6]] == list(attacks)
    assert rows[0]["q"] == attacks[0]


def test_identifiers_only_when_asked_for(write_run: Make, tmp_path: Path, requests: list[Request]) -> None:
    unread = "error:{0}: no such file (recording {0})"
    folder = write_run(
        tmp_path / "a", requests, lambda at, part: unread.format(part.record_ids[0]) if at == 0 else "no"
    )
    for ids in (False, True):
        elements = make(folder, ids=ids)
        whole = json.dumps(
            [meta(elements), *(chunk(elements, at) for at in range(len(elements.scripts("text/plain"))))]
        )
        for part in requests:
            assert (part.id in whole, part.cluster in whole, part.record_ids[0] in whole) == (ids,) * 3
        assert ("/secret/place" in whole, "record 77" in whole, str(tmp_path) in whole) == (ids,) * 3
    assert "no such file" in json.dumps(chunk(make(folder), 1))


def test_same_bytes_every_time(run: Path) -> None:
    assert page(collect(gather([str(run)]), Wanted())) == page(collect(gather([str(run)]), Wanted()))


def test_two_runs_share_their_samples_and_are_compared(
    write_run: Make, right_but: Answers, tmp_path: Path, run: Path, requests: list[Request]
) -> None:
    other = write_run(tmp_path / "b", requests, right_but(3), systems=("model",))
    about = meta(elements := make(run, f"theirs={other}"))
    (task,) = about["tasks"]
    assert task["systems"] == ["a:model", "a:majority", "theirs"]
    assert [part["name"] for part in about["runs"]] == ["a", "theirs"]
    assert "a − theirs" in about["tables"][-1]["title"]
    index = chunk(elements, task["index"])
    flips = sum(a != b for a, b in zip(index["systems"][0]["score"], index["systems"][2]["score"], strict=True))
    assert flips == sum((at % 4 == 0) != (at % 3 == 0) for at in range(144))
    assert "theirs" not in json.dumps(meta(make(run, f"theirs={other}", compare=False))["tables"][:1])


def test_runs_of_other_samples_are_joined_and_not_compared(
    write_run: Make, right_but: Answers, tmp_path: Path, run: Path, requests: list[Request]
) -> None:
    other = write_run(tmp_path / "b", requests[30:], right_but(3), systems=("model",))
    about = meta(elements := make(run, other))
    assert about["tasks"][0]["samples"] == 144
    assert "not asked the same samples" in about["tasks"][0]["notes"][0]
    assert chunk(elements, about["tasks"][0]["index"])["systems"][2]["said"][:31] == [0] * 30 + [1]
    assert about["tables"][-1]["title"] == "The runs are not compared"
    assert not any(part.id in json.dumps(about) for part in requests)


def test_runs_of_different_suites_stand_side_by_side(
    write_run: Make, right_but: Answers, tmp_path: Path, run: Path, requests: list[Request]
) -> None:
    reports = [
        Request(f"r{at}", "report", "ptbxl", (f"x{at}",), f"c{at}", question_type="report", references=("Sinus.",))
        for at in range(5)
    ]
    other = write_run(tmp_path / "b", reports, right_but(2), task="invented_reports")
    about = meta(make(run, other))
    assert [(task["name"], task["binary"], task["kind"]) for task in about["tasks"]] == [
        ("invented_qa", True, "qa"),
        ("invented_reports", False, "report"),
    ]


def test_runs_that_ask_other_things_under_one_name_are_refused(
    write_run: Make, right_but: Answers, tmp_path: Path, run: Path, requests: list[Request]
) -> None:
    changed = [dataclasses.replace(part, references=("other",)) for part in requests]
    with pytest.raises(UsageError, match="another references"):
        gather([str(run), str(write_run(tmp_path / "b", changed, right_but(3)))])
    with pytest.raises(UsageError, match="version"):
        gather([str(run), str(write_run(tmp_path / "c", requests, right_but(3), version=2))])
    with pytest.raises(UsageError, match="named twice"):
        gather([str(run), str(run)])


def test_an_unfinished_run_shows_what_is_there(
    write_run: Make,
    tmp_path: Path,
    requests: list[Request],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_run(
        tmp_path / "a", requests, lambda at, _: "no" if at < 10 else None, systems=("model",), status="interrupted"
    )
    with (folder / "invented_qa/model/samples.jsonl").open("a") as stream:
        stream.write('{"request": {"id": "half')
    about = meta(elements := make(folder))
    assert about["tables"] == []
    assert not about["runs"][0]["done"]
    assert chunk(elements, about["tasks"][0]["index"])["systems"][0]["said"] == [1] * 10 + [0] * 134
    assert command(monkeypatch, folder) == 0
    assert "not finished (interrupted)" in capsys.readouterr().err
    assert (folder / "view.html").is_file()


def test_answers_that_are_not_scored_have_no_verdict(run: Path) -> None:
    for path in run.glob("*/*/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**row, "scores": {}}) + "\n" for row in rows))
    about = meta(elements := make(run))
    assert about["tasks"][0]["figure"] is None
    assert set(chunk(elements, about["tasks"][0]["index"])["systems"][0]["score"]) == {None}


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        (None, "no such folder or file", 2),
        ("empty", "holds no run.json", 2),
        ("broken", "not a run record", 1),
        ("new", "nothing was answered yet", 1),
        ("bad line", "not a sample", 1),
        ("no requests", "holds scores but no answers", 1),
    ],
)
def test_bad_input_ends_in_one_line(
    content: str | None, message: str, code: int, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if content is None:
        run = tmp_path / "nowhere"
    elif content == "empty":
        (run / "run.json").unlink()
    elif content == "broken":
        (run / "run.json").write_text("{")
    elif content == "new":
        (run / "run.json").write_text(json.dumps({"status": "running", "config": {}, "command": [], "started": "x"}))
    elif content == "bad line":
        path = run / "invented_qa/model/samples.jsonl"
        path.write_text("[]\n" + path.read_text())
    else:
        (run / "invented_qa/requests.jsonl").unlink()
    assert command(monkeypatch, run, "-o", tmp_path / "out.html") == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out.html").exists()


def test_a_place_that_cannot_be_written_to_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, run, "-o", tmp_path / "none" / "x.html") == 1
    assert re.search(r"--output .*x\.html: cannot be written", capsys.readouterr().err)


def test_recordings_need_their_data(run: Path) -> None:
    with pytest.raises((UsageError, DataError)):
        collect(gather([str(run)]), Wanted(ecgs=3))


def test_recordings_answered_worst_come_first(run: Path, requests: list[Request]) -> None:
    chosen = list(ecgs.chosen(gather([str(run)]).tasks, 12))
    wrong = {("ptbxl", part.record_ids[0]) for at, part in enumerate(requests) if at % 4 == 0}
    assert len(chosen) == 12
    assert set(chosen) <= wrong


def test_an_ecg_keeps_its_shape_at_the_rate_and_depth_of_the_page() -> None:
    pytest.importorskip("scipy")
    from heartllm.ecg.recording import Recording

    times = np.arange(5000) / 500
    signal = np.stack([(lead + 1) * np.sin(2 * np.pi * 1.2 * times) for lead in range(12)]).astype(np.float32)
    signal[3, 2000:3000] = np.nan
    packed = ecgs.packed(Recording(signal, 500.0))
    assert (packed["rate"], packed["length"]) == (250, 2500)
    steps = np.cumsum(np.frombuffer(packed["bytes"], "<i2").reshape(12, 2500), axis=1, dtype=np.int16)
    assert np.abs(steps[7] * packed["step"] - signal[7, ::2]).max() < 0.025
    assert (steps[3, 1000:1500] == ecgs.MISSING).all()
    assert (steps[3, :999] != ecgs.MISSING).all()


@pytest.mark.slow
def test_forty_thousand_samples_stay_small(write_run: Make, right_but: Answers, tmp_path: Path) -> None:
    requests = []
    for part in invented_requests("test", 200):
        for copy in range(34):
            words = f"{part.question} {np.random.default_rng(len(requests)).bytes(12).hex()}"
            requests.append(dataclasses.replace(part, id=f"{part.id}-{copy}", question=words))
    requests = requests[:40_000]
    run = write_run(tmp_path / "a", requests, right_but(4), systems=("model", "majority", "blind"))
    began = time.monotonic()
    contents = collect(gather([str(run)]), Wanted())
    html = page(contents)
    print(f"40,000 samples of 3 systems: {len(html) / 1e6:.1f} MB in {time.monotonic() - began:.1f} s")
    assert len(requests) == 40_000
    assert len(contents.meta["tasks"][0]["chunks"]) == 40_000 // columns.CHUNK
    assert len(html) < 25e6
