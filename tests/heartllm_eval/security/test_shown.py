"""What a model says is data: in no form of output does it become markup, a formula or an order to the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from heartllm.errors import DataError, run_command_line
from heartllm.plain import plain, plain_line
from heartllm_eval import cli
from heartllm_eval.rendering import Table, csv_text, latex_document, markdown_code, markdown_text
from heartllm_eval.runner import run
from heartllm_eval.schema import Prediction
from heartllm_eval.testing import Echo

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\u202egnp.exe\u200b\x00\x08"
HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"
MARKDOWN = "](javascript:alert(1)) ![x](http://evil/?leak) | `code` | # head\n\n<b>x</b>\n\n---"
LATEX = r"\input{/etc/passwd}\write18{touch ran}\end{tabular}$x$%&#_^~"
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+cmd", "@SUM(1)", "\t=1+1", "\r=1+1", " =1+1", "＝1+1"]
SAID = [ESCAPES, HTML, MARKDOWN, LATEX, *FORMULAS]
TABLE = Table(SAID[0], ("system", "said"), tuple((text, text) for text in SAID), (HTML, MARKDOWN, LATEX, f"`{HTML}\n`"))


def live_control(text: str) -> list[str]:
    """Characters that a terminal obeys or hides."""
    return [char for char in text if plain(char) != char]


def outside_code(markdown: str) -> str:
    """The Markdown without its code spans, in which nothing is markup."""
    return re.sub(r"(?<!\\)`[^`\n]*`", "", markdown)


def check_markdown(text: str) -> None:
    assert not live_control(text)
    shown = outside_code(text)
    assert not re.search(r"<(?!br>)[a-zA-Z/!]", shown), "HTML"
    assert "](" not in shown.replace(r"]\(", ""), "a link or picture"


def check_latex(text: str) -> None:
    assert not live_control(text)
    for word in (r"\input", r"\write", r"\end{tabular}$"):
        assert word not in text
    assert text.count(r"\end{tabular}") == text.count(r"\begin{tabular}")


def check_csv(text: str) -> None:
    assert not live_control(text.replace("\r", ""))
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    for cell in cells:
        if not re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", cell):
            assert not re.match(r"\s*[=+\-@＝＋－＠]", cell), f"a formula: {cell!r}"


def test_one_table_in_every_form() -> None:
    check_markdown(TABLE.markdown())
    check_latex(latex_document([(HTML, TABLE)]))
    check_csv(csv_text(("a", "b"), [{"a": text, "b": -1.5} for text in SAID]))
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    TABLE.show(console)
    assert not live_control(console.file.getvalue())  # type: ignore[attr-defined]


@given(st.text())
def test_any_text(text: str) -> None:
    assert not live_control(plain(text))
    assert "\n" not in plain_line(text)
    assert plain(plain(text)) == plain(text)
    assert markdown_code(text).count("`") == 2
    assert not re.search(r"[<>]", markdown_text(text))
    check_csv(csv_text(("a",), [{"a": text}]))


def test_printable_text_stays_as_it_is() -> None:
    text = "Sinusrhythmus, Größe 1,80 m; ST ↑ in V2–V4\nsecond line"
    assert plain(text) == text


class Hostile(Echo):
    """Says each of `SAID` in turn."""

    def predict(self, requests: Any, task: Any) -> Any:
        for number, request in enumerate(requests):
            yield Prediction(request.id, SAID[number % len(SAID)] + str(number))

    def describe(self) -> Mapping[str, Any]:
        return {"name": HTML + ESCAPES + "`" + MARKDOWN}


@pytest.fixture
def runs(spec: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Two finished runs: one of a hostile model, one of a good one."""
    evil, good = replace(spec, output=tmp_path / "evil"), replace(spec, output=tmp_path / "good")
    run(evil, lambda system, context: Hostile())
    run(good, lambda system, context: Echo())
    return evil.output, good.output


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


CHECKS = {
    "markdown": check_markdown,
    "latex": check_latex,
    "csv": check_csv,
    "text": lambda text: live_control(text) == [] or pytest.fail("control characters"),
    "json": lambda text: json.loads(text),
}


@pytest.mark.parametrize("form", list(CHECKS))
def test_a_hostile_model_in_tables_and_comparisons(
    runs: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    evil, good = runs
    check_markdown((evil / "results.md").read_text(encoding="utf-8"))
    assert command(monkeypatch, "tables", evil, "--format", form) == 0
    CHECKS[form](capsys.readouterr().out)
    assert (
        command(monkeypatch, "compare", evil, good, "--format", form, "--examples", "20", "--confidence_n", "100") == 0
    )
    shown = capsys.readouterr().out
    assert shown
    CHECKS[form](shown)


def test_a_hostile_record(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run.json from elsewhere: its names, notes, signatures and command are text like any other."""
    path = runs[0] / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["command"] = ["heartllm-eval", MARKDOWN, HTML]
    record["settings"]["notes"] = SAID
    record["source"] = {"commit": HTML}
    record["versions"]["heartllm"] = HTML
    record["tasks"]["invented_qa"]["title"] = MARKDOWN + HTML
    name = "model"
    record["systems"] = {name: record["systems"][name]}
    path.write_text(json.dumps(record), encoding="utf-8")
    assert command(monkeypatch, "score", runs[0], "--confidence_n", "100", "--format", "csv") == 0
    check_markdown((runs[0] / "results.md").read_text(encoding="utf-8"))


def test_an_error_that_repeats_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError(f"column {ESCAPES!s} is unknown", where=f"x{ESCAPES}", remedy="Mend it.")

    with pytest.raises(SystemExit):
        run_command_line(fail)
    said = capsys.readouterr().err
    assert said.endswith("Mend it.\n")
    assert not live_control(said)


def test_a_hostile_answer_of_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from types import SimpleNamespace

    import heartllm.cli
    import heartllm.ecg
    import heartllm.responder

    recording = SimpleNamespace(record_id="r", notes=(f"note {ESCAPES}",))
    responder = SimpleNamespace(encode=lambda found: [1], answer=lambda items, max_new_tokens: iter([ESCAPES]))
    monkeypatch.setattr(heartllm.ecg, "read_recording", lambda *a, **k: recording)
    monkeypatch.setattr(heartllm.responder.Responder, "load", lambda *a, **k: responder)
    heartllm.cli.ask("Is it?", Path("x"), Path("y"), "", None, "cpu")
    said = capsys.readouterr()
    assert "owned" in said.out
    assert not live_control(said.out + said.err)


def test_hostile_prompts_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    from heartllm_eval.progress import Progress

    Progress().warn(ESCAPES)
    Progress().note(ESCAPES)
    assert not live_control(capsys.readouterr().err)
