"""`heartllm-eval lexicon`: what the clinical score reads in a report, and how well that agrees with coded findings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heartllm.errors import UsageError
from heartllm.writing import write_whole
from heartllm_eval.options import DataRoot, console


def lexicon(
    report: Annotated[
        list[str] | None, typer.Argument(help="A report, or '-' for one a line on standard input.", show_default=False)
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", metavar="DATASET", help="Compare with the codes of ptbxl, synthetic-a, ...")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="With --check: the split that is shown in detail.")] = "test",
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option("--output_path", "-o", help="With --check: a Markdown file to write as well.")
    ] = None,
) -> None:
    """Shows the findings that the clinical score reads in a report, or checks its lexicon against coded recordings.

    `heartllm-eval lexicon "Sinus rhythm. Cannot rule out inferior infarct."`

    `heartllm-eval lexicon --check ptbxl --data_root DATA`
    """
    if (check is None) == (not report):
        raise UsageError("nothing to read" if check is None else "a report and --check",
                         where="lexicon", remedy="Give a report, or --check DATASET.")  # fmt: skip
    if check is None:
        if output is not None:
            raise UsageError("there is nothing to write", where="--output_path", remedy="It goes with --check.")
        _show_findings(report or [])
    else:
        _check(check, split, data_root or [], output)


def _show_findings(reports: list[str]) -> None:
    import sys

    from heartllm_eval.metrics.clinical.extraction import findings, mentions
    from heartllm_eval.metrics.clinical.lexicon import LEXICON, bundled
    from heartllm_eval.tables import Table

    read = bundled()
    texts = [line for text in reports for line in (sys.stdin.read().splitlines() if text == "-" else [text])]
    for text in texts:
        counted = findings(text)
        rows = [
            (found.code, read.names[found.code], found.status, found.words, ", ".join(found.cues))
            for found in mentions(text)
        ]
        critical = [name for name, codes in read.critical.items() if any(counted.get(c) == "stated" for c in codes)]
        doubt = [
            name
            for name, codes in read.critical.items()
            if name not in critical and any(counted.get(c) == "uncertain" for c in codes)
        ]
        notes = [f"Critical: {', '.join(critical) or 'none'}; possibly: {', '.join(doubt) or 'none'}."]
        notes.append(f"Lexicon {read.version}-{read.digest}: {LEXICON}")
        shown = text if len(text) <= 100 else text[:99] + "…"
        Table(shown, ("code", "finding", "status", "read in", "because of"), tuple(rows), tuple(notes)).show(console())


def _check(dataset: str, split: str, roots: list[Path], output: Path | None) -> None:
    from heartllm.data.dataset import FOLDERS
    from heartllm_eval.metrics.clinical.agreement_report import PREFACE, TITLE, build_tables, read_source

    if not roots:
        raise UsageError("no data", where="--data_root", remedy="Name the folder that holds the datasets.")
    root = next((root for root in roots if (root / FOLDERS.get(dataset, dataset)).is_dir()), roots[0])
    tables = build_tables(read_source(dataset, root), split)
    if output is not None:
        target = output.name if output.is_absolute() else output.as_posix()
        command = f"heartllm-eval lexicon --check {dataset} --split {split} --data_root DATA -o {target}"
        text = "\n\n".join(table.markdown() for table in tables)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_whole(output, f"# {TITLE} {dataset}\n\n`{command}`\n\n{PREFACE}\n\n{text}\n")
        except OSError as error:
            raise UsageError(
                f"cannot be written ({error.strerror})", where=output, remedy="Name another file."
            ) from None
    for table in tables:
        table.show(console())


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(lexicon)
