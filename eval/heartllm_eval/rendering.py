"""One table, five forms: text for the screen, Markdown, CSV, JSON, LaTeX. What a model said never counts as markup."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from heartllm.plain import plain_line

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("text", "markdown", "csv", "json", "latex")

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    "[": r"{[}",  # a row that begins with a bracket would be read as an argument of the line break above it
    "]": r"{]}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "†": r"\textsuperscript{\dag}",
    "⏎": r"$\hookleftarrow$",
    "’": "'",
    "`": r"\textasciigrave{}",
}
_LATEX_CODES = str.maketrans(_LATEX)
_NUMBER = re.compile(r"\[?[<+−-]? ?\d|–$")
_FORMULA = tuple("=+-@＝＋－＠")  # a spreadsheet takes a cell that begins so as a formula (OWASP)
_MARKDOWN = re.compile(r"[\\`*|~$]|^[#>+-](?=\s|#)|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])")


def shorten(text: str, length: int = 160) -> str:
    """`plain_line`, cut with an ellipsis."""
    shown = plain_line(text)
    return shown if len(shown) <= length else f"{shown[: length - 1].rstrip()}…"


def markdown_text(text: str) -> str:
    """Text that GitHub Markdown shows as it is: no table cells, emphasis, links, HTML, mathematics."""
    escaped = _MARKDOWN.sub(lambda found: "\\" + found.group(0), plain_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_code(text: str) -> str:
    """Text between backticks, of which it then has none itself."""
    return "`" + plain_line(text).replace("`", "'") + "`"


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it is; a minus before a digit becomes a minus sign, and two hyphens stay two."""
    shown = re.sub(r"(?<![\w.-])-(?=\d)", "−", plain_line(text))
    return re.sub(r"-(?=-)", "-\0", shown).translate(_LATEX_CODES).replace("\0", "{}")


def indent(space: str, cell: str, escape: Callable[[str], str]) -> str:
    """The escaped cell; two spaces before it, which a renderer would drop, become `space`."""
    return f"{space}{escape(cell[2:])}" if cell.startswith("  ") else escape(cell)


def csv_cell(value: Any) -> Any:
    """Numbers as they are, None as nothing; a text that a spreadsheet would take for a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return value
    text = plain_line(str(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header (RFC 4180 quoting, line feeds)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(row.get(column)) for column in columns])
    return stream.getvalue()


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: above it.
        columns: headers; the first column holds row names.
        rows: cells.
        notes: below it. A note in backticks is a signature.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> list[bool]:
        """Which columns are set to the right: those of numbers, but for the first."""
        return _right(self.columns, self.rows)

    def markdown(self) -> str:
        """GitHub Markdown."""

        def line(cells: Iterable[str]) -> str:
            return "| " + " | ".join(indent("&emsp;", cell, markdown_text) for cell in cells) + " |"

        rule = "|" + "|".join("---:" if right else "---" for right in self.right) + "|"
        body = [line(self.columns), rule, *(line(row) for row in self.rows)]
        notes = [f"\n{note if _is_code(note) else markdown_text(note)}" for note in self.notes]
        return "\n".join([f"### {markdown_text(self.title)}", "", *body, *notes])

    def latex(self, label: str) -> str:
        """A `table` with booktabs rules; it needs `\\usepackage{booktabs}` and nothing else."""

        def line(cells: Iterable[str]) -> str:
            return " & ".join(indent(r"\quad ", cell, latex_text) for cell in cells) + r" \\"

        notes = [rf"{{\footnotesize {_latex_note(note)}\par}}" for note in self.notes]
        return "\n".join(
            [
                r"\begin{table}[tbp]",
                r"\centering",
                r"\small",
                rf"\caption{{{latex_text(self.title)}}}",
                rf"\label{{tab:{label}}}",
                rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in self.right)}}}",
                r"\toprule",
                line(self.columns),
                r"\midrule",
                *(line(row) for row in self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                *([r"\par\smallskip\raggedright"] if notes else []),
                *notes,
                r"\end{table}",
            ]
        )

    def show(self, console: Console, *, notes: bool = True) -> None:
        """Prints it. Nothing is ever cut: a table wider than the screen is turned if it fits then, or else split."""
        from rich.text import Text

        console.print(Text(plain_line(self.title), style="bold"), soft_wrap=True)
        for number, block in enumerate(fit((self.columns, *self.rows), console.width)):
            if number:
                console.print()
            for index, line in enumerate(block):
                console.print(Text(line, style="bold" if index == 0 else ""), soft_wrap=True)
        if notes and self.notes:
            console.print()
        for note in self.notes if notes else ():
            console.print(Text(plain_line(note), style="dim"), soft_wrap=True)
        console.print()


def show_all(tables: Sequence[Table], console: Console) -> None:
    """Prints tables; notes that the next table has as well are printed under the last one that has them."""
    for table, following in zip(tables, [*tables[1:], None], strict=True):
        table.show(console, notes=following is None or following.notes != table.notes)


def latex_document(tables: Sequence[tuple[str, Table]]) -> str:
    """(name, table) pairs, ready for \\input; labels are made of names (of a folder the last part) and titles."""
    labels: list[str] = []
    parts = []
    for number, (name, table) in enumerate(tables, start=1):
        label = re.sub(r"[^a-z0-9]+", "-", f"{PurePath(name).name} {table.title}".lower()).strip("-")
        label = label if label not in labels else f"{label}-{number}"
        labels.append(label)
        parts.append(table.latex(label))
    return "\n\n".join([r"% needs \usepackage{booktabs}", *parts]) + "\n"


def _is_code(note: str) -> bool:
    return len(note) > 2 and note[0] == note[-1] == "`" and "`" not in note[1:-1] and plain_line(note) == note


def _latex_note(note: str) -> str:
    if not _is_code(note):
        return latex_text(note)
    # A signature is one long word; it may break behind each of its parts.
    return rf"\texttt{{{latex_text(note[1:-1]).replace(_LATEX['|'], _LATEX['|'] + chr(92) + 'allowbreak ')}}}"


def fit(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The lines of a table at most `width` wide, as blocks; the first row is the header.

    A wider table has its rows and columns swapped if it fits then; otherwise its columns are given to several blocks,
    each with the first column.
    """
    cells = [[plain_line(cell) for cell in row] for row in rows]
    marked = [any(cell.endswith("†") for cell in column) for column in zip(*cells, strict=True)]
    cells = [  # so that numbers with and without a mark stand below each other
        [f"{cell} " if mark and not cell.endswith("†") else cell for cell, mark in zip(row, marked, strict=True)]
        for row in cells
    ]
    turned = [list(column) for column in zip(*cells, strict=True)]
    for table in (cells, turned):
        if sum(_widths(table)) + 3 * (len(table[0]) - 1) <= width:
            return [_lines(table)]
    widths = _widths(cells)
    blocks: list[list[int]] = [[]]
    room = width - widths[0]
    for column, size in enumerate(widths[1:], start=1):
        if blocks[-1] and size + 3 > room:
            blocks.append([])
            room = width - widths[0]
        blocks[-1].append(column)
        room -= size + 3
    return [_lines([[row[0], *(row[column] for column in block)] for row in cells]) for block in blocks]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines, columns of numbers to the right, and a rule below the header."""
    from rich.cells import cell_len

    widths = _widths(rows)
    right = _right(rows[0], rows[1:])
    lines = []
    for row in rows:
        spaces = [" " * (size - cell_len(cell)) for cell, size in zip(row, widths, strict=True)]
        parts = [space + cell if on else cell + space for cell, space, on in zip(row, spaces, right, strict=True)]
        lines.append("   ".join(parts).rstrip())
    return [lines[0], "─" * (sum(widths) + 3 * (len(widths) - 1)), *lines[1:]]


def _right(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns go to the right: those of numbers, but for the first."""
    cells = [[row[index] for row in rows] for index in range(len(columns))]
    return [
        index > 0 and 2 * sum(bool(_NUMBER.match(cell)) for cell in column) >= len(column)
        for index, column in enumerate(cells)
    ]
