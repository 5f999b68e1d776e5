"""`heartllm data get`: what is published where, what of it is here, and what to do about the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import typer

from heartllm.data.sources import Holding, Source, look, source_of
from heartllm.errors import DataError
from heartllm.plain import plain_line

SHOWN = 5  # names of missing files


def get_dataset(
    name: str,
    root_of: Callable[[], Path],
    *,
    fetch: bool,
    address: str,
    everything: bool,
    quick: bool,
    as_json: bool,
    progress: Callable[[str], AbstractContextManager[Callable[..., None]]],
) -> Holding:
    """Tells of a data set's source, fetches what is missing if asked to, and checks what is here.

    Args:
        root_of: gives the data root, or says why there is none: the source is told before.
        address: of a mirror. everything: also files that nothing here reads. quick: do not look into files.

    Raises:
        DataError: naming the remedy, if something is missing or wrong.
    """
    source = source_of(name)
    if not as_json:
        typer.echo(
            f"{source.title}\n  page     {source.page}\n  files    {source.files}\n  licence  {source.licence}\n"
            f"  size     {source.size}"
        )
    root = root_of() / source.folder
    fetched = 0
    if fetch:
        from heartllm.data.download import download

        with progress(f"fetching {name}") as report:
            fetched = download(source, root, address=address, everything=everything, report=report)
    with progress(f"checking {name}") as step:
        holding = look(source, root, quick=quick, everything=everything, step=step)
    if as_json:
        typer.echo(json.dumps(_facts(source, root, holding, fetched)))
    else:
        _tell(root, holding, fetched, "here" if quick else "here and right")
    if not holding.whole:
        raise DataError(
            f"{len(holding.missing):,} files are missing, {len(holding.wrong):,} are not as published",
            where=root,
            remedy=f"Fetch them with: heartllm data get {name} --download; or put them there from {source.page}",
        )
    return holding


def _facts(source: Source, root: Path, holding: Holding, fetched: int) -> dict[str, object]:
    about = {key: getattr(source, key) for key in ("name", "title", "page", "files", "licence", "size")}
    return {
        **about, "folder": str(root), "whole": holding.whole, "checked_by": holding.by, "expected": holding.expected,
        "missing": list(holding.missing), "wrong": list(holding.wrong), "fetched": fetched,
    }  # fmt: skip


def _tell(root: Path, holding: Holding, fetched: int, how: str) -> None:
    if fetched:
        typer.echo(f"{fetched:,} files fetched")
    if not holding.by:
        typer.echo(f"{root}: not here")
        return
    here = holding.expected - len(holding.missing) - len(holding.wrong)
    typer.echo(f"{root}: {here:,} of {holding.expected:,} files are {how} (by {holding.by})")
    for what, names in (("missing", holding.missing), ("wrong", holding.wrong)):
        if names:
            more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            typer.echo(f"  {what}: {plain_line(', '.join(names[:SHOWN]))}{more}")
