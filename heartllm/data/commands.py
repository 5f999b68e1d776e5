"""`heartllm data ...`: what is here, whether it can be read, and the files that are made from it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from heartllm.plain import plain_line

if TYPE_CHECKING:
    from heartllm.data.dataset import Dataset

data_app = typer.Typer(
    help="Datasets: list, check, draw synthetic ones, build questions, splits, leakage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SHOWN = 20  # bad recordings or overlaps that a table lists

# typer reads these at run time, where Python 3.10 needs Optional
DataRoot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--data_root", "--data-root", help="Folder with ptbxl/, ecgqa/, mimic/, ... Also: HEARTLLM_DATA."),
]
Name = Annotated[str, typer.Argument(help="ptbxl, mimic, synthetic-a, synthetic-b, georgia, chapman-ningbo, cpsc2018.")]
Split = Annotated[Optional[str], typer.Option("--split", help="train, valid or test; all by default.")]  # noqa: UP045
Out = Annotated[Optional[Path], typer.Option("--out", "-o", help="The file to write.")]  # noqa: UP045
BadShare = Annotated[
    float, typer.Option("--max_bad_share", "--max-bad-share", help="Share of unreadable recordings to go on with.")
]
Workers = Annotated[int, typer.Option("--workers", "-j", help="Processes.")]


def _open(name: str, data_root: Path | None) -> Dataset:
    from heartllm.data.dataset import data_root_from, open_dataset

    return open_dataset(name, data_root_from(data_root))


def _table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table()
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else _plain(cell) for cell in row))
    console.print(_plain(title), highlight=False)  # not the table's own title, which wraps at its width
    console.print(table)


def _plain(cell: object) -> str:
    """A cell as rich shows it literally: file names and reasons may hold square brackets."""
    from rich.markup import escape

    return "" if cell is None else escape(plain_line(str(cell)))


@contextmanager
def _progress(what: str) -> Iterator[Callable[..., None]]:
    """A bar on the terminal's standard error with the time left, fed with (done, of) or (done, of, bytes fetched)."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console, started = Console(stderr=True), time.monotonic()
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, rate="")

        def step(done: int, of: int, fetched: int = 0) -> None:
            rate = f"{fetched / 1e6 / max(time.monotonic() - started, 1e-3):.1f} MB/s" if fetched else ""
            bar.update(task, completed=done, total=of, rate=rate)

        yield step


@data_app.command("list")
def list_datasets(data_root: DataRoot = None) -> None:
    """Show which datasets are here, with recordings and patients for each split.

    Example: heartllm data list --data_root ../shared/data
    """
    from heartllm.data.dataset import FOLDERS, data_root_from, open_dataset
    from heartllm.data.records import SPLITS
    from heartllm.errors import DataError

    root = data_root_from(data_root)
    rows: list[list[object]] = []
    for name, folder in FOLDERS.items():
        if not (root / folder).is_dir():
            rows.append([name, f"not here ({folder}/)", "", "", "", ""])
            continue
        patients, splits = set[str](), Counter[str]()
        try:
            for entry in open_dataset(name, root).iter_entries():
                patients.add(entry.patient_id)
                splits[entry.split or "none"] += 1
            rows.append([name, f"{splits.total():,}", f"{len(patients):,}", *(f"{splits[s]:,}" for s in SPLITS)])
        except DataError as error:  # the other datasets are still worth showing
            rows.append([name, f"unreadable: {error}", "", "", "", ""])
    _table(str(root), ["dataset", "recordings", "patients", *SPLITS], rows)


@data_app.command()
def check(
    name: Name, data_root: DataRoot = None, split: Split = None, max_bad_share: BadShare = 0.01, workers: Workers = 1
) -> None:
    """Read every recording; list those that cannot be read, and fail if they are too many.

    Example: heartllm data check ptbxl --split test --max_bad_share 0.02
    """
    from heartllm.data.dataset_check import check_dataset

    dataset = _open(name, data_root)
    processes = 0 if workers <= 1 else workers
    with _progress(f"reading {name}") as progress:
        result = check_dataset(dataset, split, max_bad_share=max_bad_share, workers=processes, progress=progress)
    _table(
        f"{name}: {result.entries:,} recordings of {result.patients:,} patients, {len(result.bad.records)} unreadable",
        ["labelled with", "recordings"],
        [[kind, count] for kind, count in result.labelled.items()],
    )
    if result.notes:
        most = sorted(result.notes.items(), key=lambda item: -item[1])[:_SHOWN]
        _table("done on reading", ["note", "recordings"], [[note, count] for note, count in most])
    if result.bad.records:
        bad: list[list[object]] = [[b.record_id, b.reason] for b in result.bad.records[:_SHOWN]]
        _table(f"unreadable ({len(result.bad.records)} in all)", ["recording", "reason"], bad)
    result.bad.check(dataset.root)


@data_app.command()
def get(
    name: Annotated[str, typer.Argument(help="ptbxl or mimic.")],
    data_root: DataRoot = None,
    fetch: Annotated[bool, typer.Option("--download", help="Fetch what is missing; without it nothing is.")] = False,
    source: Annotated[str, typer.Option("--source", help="A mirror's address, in place of the official one.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also the files that nothing here reads.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only whether files are there, not what they hold.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell where a data set is published, and check what of it is here; with --download, fetch the rest.

    Files are held against the published SHA256SUMS.txt; a download that was stopped goes on. Exit code 1 where
    something is missing.

    Example: heartllm data get ptbxl --data_root data
    """
    from heartllm.data.dataset import data_root_from
    from heartllm.data.get import get_dataset

    get_dataset(
        name, lambda: data_root_from(data_root), fetch=fetch, address=source, everything=everything, quick=quick,
        as_json=as_json, progress=_progress,
    )  # fmt: skip


@data_app.command()
def synth(
    site: Annotated[str, typer.Argument(help="a (PTB-XL's layout) or b (MIMIC-IV-ECG's).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Data root to write synthetic-a/ or synthetic-b/ into.")],
    recordings: Annotated[int, typer.Option("--recordings", "-n", help="How many.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.")] = 0,
    workers: Workers = 2,
    noise_of: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--noise_of", "--noise-of", help="The same patients under the other site's noise: a or b."),
    ] = None,
    machine_of: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--machine_of", "--machine-of", help="The same patients on the other site's machines: a or b."),
    ] = None,
) -> None:
    """Draw a synthetic hospital: 12-lead ECGs from a documented model, with their ground truth.

    Example: heartllm data synth a --out data --recordings 2000 --seed 1

    One cause at a time: heartllm data synth b --out quiet --recordings 2000 --seed 1 --noise_of a
    """
    from heartllm.data.synthetic import write_site

    with _progress(f"drawing site {site}") as progress:
        folder = write_site(
            site.lower().removeprefix("synthetic-"),
            out,
            recordings=recordings,
            seed=seed,
            workers=workers,
            progress=progress,
            noise_of=noise_of,
            machine_of=machine_of,
        )
    typer.echo(f"{recordings:,} recordings in {folder}")


@data_app.command()
def questions(
    name: Name,
    out: Out = None,
    data_root: DataRoot = None,
    split: Split = None,
    per_cell: Annotated[
        int, typer.Option("--per_cell", "--per-cell", help="Most rows for one answer to one question.")
    ] = 20,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same rows.")] = 0,
    paraphrase: Annotated[bool, typer.Option("--paraphrase", help="Word the questions in paraphrases.")] = False,
) -> None:
    """Build ECG-QA questions from labels, each marked `derived`, drawn by template, attribute and answer.

    Example: heartllm data questions ptbxl --split test --per_cell 10 --out questions/test.json
    """
    from heartllm.data.ecgqa import write_questions
    from heartllm.data.questions import QuestionBuilder

    entries = _open(name, data_root).entries(split)
    drawn = QuestionBuilder().draw(entries, per_cell=per_cell, seed=seed, paraphrase=paraphrase)
    kinds = Counter((question.question_type, question.attribute_type) for question in drawn)
    rows: list[list[object]] = [[*kind, count] for kind, count in sorted(kinds.items())]
    _table(f"{len(drawn):,} questions about {len(entries):,} recordings", ["question", "attribute", "rows"], rows)
    if out is not None:
        write_questions(drawn, out)
        typer.echo(f"written to {out}")


@data_app.command()
def agreement(data_root: DataRoot = None) -> None:
    """Compare the question builder with every genuine ECG-QA row that is here.

    Example: heartllm data agreement --data_root ../shared/data
    """
    from heartllm.data.agreement import agreement as measure
    from heartllm.data.dataset import data_root_from

    typer.echo(measure(data_root_from(data_root)).to_markdown())


@data_app.command()
def splits(name: Name, data_root: DataRoot = None, out: Out = None) -> None:
    """Show the splits with the hash of their ids, check that no patient is in two, and write them as a manifest.

    Placed in the dataset's folder as split_manifest.json, a manifest decides the split from then on.

    Example: heartllm data splits ptbxl --out split_manifest.json
    """
    from heartllm.data.splits import make_manifest, write_manifest

    manifest = make_manifest(name, _open(name, data_root).iter_entries())
    rows: list[list[object]] = [
        [split, len(manifest.ids(split)), manifest.patients[split], digest]
        for split, digest in manifest.hashes().items()
    ]
    _table(f"{name}: no patient is in two splits", ["split", "recordings", "patients", "sha256 of the ids"], rows)
    if out is not None:
        write_manifest(manifest, out)
        typer.echo(f"written to {out}")


@data_app.command()
def leakage(
    name: Name,
    data_root: DataRoot = None,
    group: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--group", help="TASK/ROLE=PATH: a question, report or id file; ROLE is train, valid, test, pretrain."
        ),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show pairs that share nothing as well.")] = False,
) -> None:
    """Look for recordings and patients that one stage learns from and another is scored on.

    Compares the dataset's splits, ECG-QA's lists and rows, the reports, and any further files given as groups.

    Example: heartllm data leakage ptbxl --group "report/train=reports_train.json"
    """
    from heartllm.data.dataset import data_root_from
    from heartllm.data.dataset_leakage import ids_in, overlaps, published_groups, role_of, split_groups
    from heartllm.errors import DataError, UsageError

    root = data_root_from(data_root)
    entries = _open(name, root).entries()
    groups = split_groups(entries) | published_groups(root, name)
    for text in group or []:
        label, separator, path = text.partition("=")
        if not separator:
            raise UsageError(f"{text!r} is no group", remedy="Write TASK/ROLE=PATH.", where="--group")
        role_of(label)
        groups[label] = ids_in(Path(path))
    found = overlaps(groups, {entry.record_id: entry.patient_id for entry in entries})
    leaks = [overlap for overlap in found if overlap.leak]
    rows: list[list[object]] = [
        [o.first, o.second, o.records, o.patients or 0, "LEAK" if o.leak else "", ", ".join(o.examples)]
        for o in (found if show_all else leaks)
    ]
    if rows:
        _table(name, ["learnt from or chosen on", "and", "recordings", "patients", "", "examples"], rows)
    typer.echo(f"{len(found)} pairs of groups compared, {len(leaks)} leak")
    if leaks:
        raise DataError(
            f"{leaks[0].first} and {leaks[0].second} share {leaks[0].records} recordings",
            remedy="Leave them out of one of the two.",
            where=name,
        )
