"""`heartllm-eval view`: runs as one HTML page: tables, the confusion of answers, every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heartllm.errors import DataError, UsageError
from heartllm_eval.options import Confidence, DataRoot, Resamples, Verbosity

LARGE = 25_000_000  # bytes; more than 40,000 reports of random words by five systems

EPILOG = """**Examples**

`heartllm-eval view runs/mine` (writes runs/mine/view.html)

`heartllm-eval view runs/mine runs/theirs -o both.html` (also compares them, and shows which answers flip)

`heartllm-eval view ours=runs/mine:model theirs=runs/theirs:model --tasks ptbxl_qa`

`heartllm-eval view runs/mine --ecgs 50 --data_root /path/to/data` (the 50 recordings that it did worst on)

`heartllm-eval view runs/mine --ecgs 8 --shade runs/checkpoint` (occlusion and attention, over the ECG)

The page holds questions, references, patient features and answers, so share it only as you may share those. Samples,
recordings and patients are numbered in the order of requests.jsonl unless `--ids` is given."""


def view(
    runs: Annotated[list[str], typer.Argument(help="RUN or RUN:SYSTEM, each with LABEL= before it if wanted.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. Default: view.html in the first run's folder.")
    ] = None,
    tasks: Annotated[list[str] | None, typer.Option("--tasks", "-t", help="Only these suites.")] = None,
    title: Annotated[str, typer.Option("--title", help="Above the page. Default: the runs' names.")] = "",
    ecgs: Annotated[
        int, typer.Option("--ecgs", min=0, max=2000, help="Recordings to put in, the worst answered; some 30 kB each.")
    ] = 0,
    data_root: DataRoot = None,
    shade: Annotated[
        Path | None,
        typer.Option(
            "--shade",
            help="Shade those ECGs by what this checkpoint's answers rest on. Some seconds an ECG and question.",
        ),
    ] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="Show ids of samples and recordings, patients' hashes, folder and command.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare/--no_compare", help="Compare the runs with each other, if there are several.")
    ] = True,
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
    verbosity: Verbosity = 1,
) -> None:
    """Writes one self-contained HTML page of runs, finished or not: tables, confusion of answers, every sample.

    It opens from disk in any current browser and loads nothing from the network.
    """
    from heartllm.writing import write_whole
    from heartllm_eval.commands.shared import split_names
    from heartllm_eval.page.assemble import page
    from heartllm_eval.page.contents import Wanted, collect
    from heartllm_eval.page.gather import gather
    from heartllm_eval.progress import Progress
    from heartllm_eval.scoring import Options

    if shade is not None and not ecgs:
        raise UsageError("there is no ECG to shade", where="--shade", remedy="Give --ecgs 8, or another number.")
    say = Progress(verbosity)
    found = gather(runs, split_names(tasks))
    target = output or next(iter(found.folders.values())) / "view.html"
    for name, record in found.records.items():
        if record.status not in ("done", "predicted"):
            say.warn(f"{name} is not finished ({record.status}): the page shows what is there")
    wanted = Wanted(title, ids, ecgs, tuple(data_root or ()), shade, compare, Options(confidence_n, confidence))
    content = page(collect(found, wanted, warn=say.warn, bar=say.bar))
    try:
        write_whole(target, content)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror})", where=f"--output {target}", remedy="Choose another place."
        ) from None
    if len(content) > LARGE:
        say.warn("a page this large opens slowly; leave out suites (--tasks), systems (RUN:SYSTEM) or ECGs")
    samples = sum(len(task.requests) for task in found.tasks)
    say.note(f"{target}: {samples:,} samples, {len(content) / 1e6:.1f} MB")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(view)
