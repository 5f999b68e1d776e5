"""The option `--version` of both command lines."""

from __future__ import annotations

from typing import Annotated

import typer

from heartllm import __version__


def _tell(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heartllm {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell, is_eager=True, help="Print the version of the packages, and end.")
]
