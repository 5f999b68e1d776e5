from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from heartllm_eval import rendering
from heartllm_eval.rendering import Table

TABLE = Table(
    "Site_A: 50% & more",
    ("system", "n", "score"),
    (("model_1", "5,314", "61.6 [58.0, 65.3]"), ("  verify", "3", "-0.5"), ("|x|", "1", "<b>$y$</b>")),
    ("Paired.", "`metric:bleu|split:[.]|case:no`"),
)


def test_markdown() -> None:
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "### Site_A: 50% &amp; more"
    assert lines[2:] == [
        "| system | n | score |",
        "|---|---:|---:|",
        "| model_1 | 5,314 | 61.6 [58.0, 65.3] |",
        "| &emsp;verify | 3 | -0.5 |",
        r"| \|x\| | 1 | &lt;b&gt;\$y\$&lt;/b&gt; |",
        "",
        "Paired.",
        "",
        "`metric:bleu|split:[.]|case:no`",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**loud** _thin_ a_b", r"\*\*loud\*\* \_thin\_ a_b"),
        ("[click](http://x)", r"[click]\(http://x)"),
        ("`code` ~~gone~~", r"\`code\` \~\~gone\~\~"),
        ("# head", r"\# head"),
        ("a\nb\r\nc", "a⏎b⏎c"),
        ("\x1b[31mred\u202e", "\\\\u001b[31mred\\\\u202e"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markdown_shows_what_was_said(text: str, shown: str) -> None:
    assert rendering.markdown_text(text) == shown


def test_latex() -> None:
    text = TABLE.latex("one")
    for part in (
        r"\caption{Site\_A: 50\% \& more}",
        r"\label{tab:one}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model\_1 & 5,314 & 61.6 {[}58.0, 65.3{]} \\",
        r"\quad verify & 3 & $-$0.5 \\",
        r"\textbar{}x\textbar{} & 1 & $<$b$>$\$y\$$<$/b$>$ \\",
        r"\texttt{metric:bleu\textbar{}\allowbreak split:{[}.{]}\textbar{}\allowbreak case:no}",
        r"\bottomrule",
    ):
        assert part in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def test_latex_keeps_hyphens_and_aligns_words_to_the_left() -> None:
    assert rendering.latex_text("--limit -0.5, 60-79, `x`") == (
        r"-{}-limit $-$0.5, 60-79, \textasciigrave{}x\textasciigrave{}"
    )
    table = Table("t", ("a", "said", "n"), (("x", "yes", "3"), ("y", "no", "–")))
    assert r"\begin{tabular}{llr}" in table.latex("t")
    assert "|---|---|---:|" in table.markdown()


@given(st.text(max_size=60))
def test_latex_leaves_no_command_to_what_was_said(text: str) -> None:
    found = rendering.latex_text(text)
    for known in sorted(set(rendering._LATEX.values()), key=len, reverse=True):
        found = found.replace(known, "")
    assert not re.search(r"[\\{}$&#%_^~`]", found.replace("-{}", ""))
    assert "\n" not in found


@given(st.text(max_size=60))
def test_a_cell_stays_one_cell(text: str) -> None:
    row = Table("t", ("a", "b"), ((text, "x"),)).markdown().splitlines()[4]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert "<" not in row


@given(st.lists(st.one_of(st.text(max_size=20), st.floats(allow_nan=False), st.none()), min_size=1, max_size=4))
def test_csv_reads_back_and_holds_no_formula(values: list[object]) -> None:
    names = [str(index) for index in range(len(values))]
    rows = list(csv.reader(io.StringIO(rendering.csv_text(names, [dict(zip(names, values, strict=True))]))))
    assert len(rows) == 2
    assert len(rows[1]) == len(values)
    for value, cell in zip(values, rows[1], strict=True):
        if isinstance(value, float):
            assert float(cell) == value
        else:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_csv_keeps_negative_numbers_and_marks_formulas() -> None:
    assert rendering.csv_cell(-1.5) == -1.5
    assert rendering.csv_cell("=SUM(A1)") == "'=SUM(A1)"
    assert rendering.csv_cell(True) == "true"
    assert rendering.csv_text(["a"], [{"a": 'x, "y"'}]) == 'a\n"x, ""y"""\n'


CELLS = st.text(alphabet="ab1 −[.é漢", min_size=0, max_size=12)


@given(st.integers(2, 6).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=2, max_size=5)))
def test_no_cell_is_ever_cut(rows: list[list[str]]) -> None:
    widest = max(cell_len(cell) for row in rows for cell in row)
    blocks = rendering.fit(rows, 40)
    lines = [line for block in blocks for line in block]
    assert all(cell_len(line) <= max(40, 2 * widest + 3) for line in lines)
    everything = "\n".join(lines)
    assert all(cell.strip() in everything for row in rows for cell in row)


@pytest.mark.parametrize("width", [20, 80, 200])
def test_tables_on_a_screen_of_any_width(width: int) -> None:
    stream = io.StringIO()
    columns = ("system", *(f"type {i} (n=1,000)" for i in range(8)))
    rows = tuple((name, *(f"{i}1.6 [58.0, 65.{i}]" for i in range(8))) for name in ("model", "blind"))
    Table("t", columns, rows, ("a note",)).show(Console(file=stream, width=width))
    shown = stream.getvalue()
    assert "…" not in shown
    assert all(f"{i}1.6 [58.0, 65.{i}]" in shown for i in range(8))
    if width > 40:
        assert max(map(len, shown.splitlines())) <= width


def test_labels_of_a_latex_document_differ() -> None:
    text = rendering.latex_document([("a", TABLE), ("a", TABLE)])
    labels = re.findall(r"\\label\{(.*)\}", text)
    assert len(set(labels)) == 2
    assert text.startswith("% needs \\usepackage{booktabs}")
