"""`heartllm-eval report`: the paper's tables, figures and pages from frozen runs; `--check` holds them against them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heartllm_eval.options import Verbosity

EPILOG = """**Examples**

`heartllm-eval report` (makes everything below reports/ again)

`heartllm-eval report --check` (fails where a committed table, figure or page is not what the frozen runs say)

`heartllm-eval report --plan mine/paper.toml -o out`"""

Plan = Annotated[Path, typer.Option("--plan", help="The plan; frozen runs and figure data lie beside it.")]


def report(
    plan: Plan = Path("reports/paper.toml"),
    output_path: Annotated[
        Path | None, typer.Option("--output_path", "-o", help="Folder to write to (default: the plan's own).")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a committed file differs.")] = False,
    complete: Annotated[
        bool, typer.Option("--complete", help="Refuse rows that were not run instead of saying so.")
    ] = False,
    verbosity: Verbosity = 1,
) -> None:
    """Makes tables, figures, claims.md and README.md from frozen runs: minutes, without torch, data or checkpoints."""
    from heartllm_eval.paper import plan as plans
    from heartllm_eval.paper import report as reports

    def say(line: str) -> None:
        if verbosity:
            print(line, file=sys.stderr)

    loaded = plans.load(plan)
    if check:
        reports.check(loaded, plan.parent, say=say)
        return
    made = reports.build(loaded, plan.parent, output_path or plan.parent, complete=complete, say=say)
    say(f"{len(made.files)} files written to {output_path or plan.parent}")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(report)
