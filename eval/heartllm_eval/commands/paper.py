"""`heartllm-eval paper`: trains and evaluates every row of the paper's plan, and freezes the runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heartllm.errors import UsageError
from heartllm_eval.commands.shared import split_names
from heartllm_eval.options import DataRoot

EPILOG = """**Examples**

`heartllm-eval paper reports/paper.toml --dry_run` (what is open, and how long it would take)

`heartllm-eval paper reports/paper.toml --jobs 2` (two commands side by side, where there are two cores)

`heartllm-eval paper reports/paper.toml --work runs/paper --only heartllm,clip`

`heartllm-eval paper reports/paper.toml --regimes joint --seeds 1` (the main tables first, one training a row)

`heartllm-eval paper reports/paper.toml --missing` (only what is not frozen yet, in a fresh work folder too)

The same command goes on where it was stopped. A row that fails does not stop the others; the exit code then is 1."""


def paper(
    plan: Annotated[Path, typer.Argument(help="The plan, such as reports/paper.toml.")],
    work: Annotated[Path, typer.Option("--work", help="Folder of checkpoints, stores, runs and logs.")] = Path(
        "runs/paper"
    ),
    only: Annotated[list[str] | None, typer.Option("--only", help="Only these rows, separated by commas.")] = None,
    regimes: Annotated[
        list[str] | None,
        typer.Option("--regimes", help="Only these, separated by commas: joint, a-to-b, ..."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=0, help="At most so many trainings a row.")] = 0,
    size: Annotated[str | None, typer.Option("--size", help="A size of the plan; its first without.")] = None,
    frozen: Annotated[
        Path | None, typer.Option("--frozen", help="Folder of frozen runs (default: runs beside the plan).")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; the size's own without.")] = None,
    data_root: DataRoot = None,
    jobs_n: Annotated[int, typer.Option("--jobs", min=1, help="Commands side by side, such as one a core.")] = 1,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only trainings of which no run is frozen yet, and what they need.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Only say what would run.")] = False,
) -> None:
    """Trains and asks every row and seed of a plan, stage by stage, and freezes the runs; resumable."""
    from heartllm_eval import frozen as freezing
    from heartllm_eval.paper import driver, stages
    from heartllm_eval.paper import plan as plans

    loaded = plans.load(plan)
    chosen = loaded.size(size)
    first = chosen is loaded.sizes[0]
    folder = frozen or plan.parent / ("runs" if first else f"runs-{chosen.name}")
    setting = stages.Setting(
        loaded,
        chosen,
        work.absolute() / chosen.name,
        folder.absolute(),
        device or chosen.device,
        tuple(data_root or ()),
    )
    names = split_names(only)
    for name in names:
        loaded.row(name)
    places = split_names(regimes)
    for place in places:
        if chosen.regime(place) is None:
            known = ", ".join(regime.name for regime in chosen.regimes)
            raise UsageError(
                f"size {chosen.name} has no regime {place!r}", where="--regimes", remedy=f"It has: {known}."
            )
    jobs = stages.jobs(setting, frozenset(names), regimes=frozenset(places), seeds=seeds, missing=missing)
    if not jobs and missing:
        print("every run is frozen", file=sys.stderr)
        return
    if not jobs:
        raise UsageError("nothing to do", where="--only", remedy="These rows are not trained so at this size.")
    if dry_run:
        print(driver.plan_text(setting, jobs))
        return
    (setting.frozen / freezing.SAMPLES_FOLDER).mkdir(parents=True, exist_ok=True)
    driver.carry_out(setting, jobs, workers=jobs_n, say=lambda line: print(line, file=sys.stderr, flush=True))


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(paper)
