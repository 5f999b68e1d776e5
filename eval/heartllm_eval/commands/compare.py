"""`heartllm-eval compare`: is A better than B?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartllm.errors import DataError, UsageError
from heartllm.writing import write_whole
from heartllm_eval.commands.shared import check_format, split_names
from heartllm_eval.options import Confidence, Format, Output, Resamples, Verbosity, console

if TYPE_CHECKING:
    from heartllm_eval.comparison.flips import Flip
    from heartllm_eval.comparison.pairs import Comparison
    from heartllm_eval.comparison.sides import Side

EPILOG = """**Examples**

`heartllm-eval compare runs/mine runs/theirs` (the model of each)

`heartllm-eval compare runs/mine` (its model with each of its controls)

`heartllm-eval compare runs/mine:model runs/mine:blind` or `heartllm-eval compare runs/mine --systems model,blind`

`heartllm-eval compare ours=a.jsonl theirs=b.jsonl --references references.jsonl` (predictions files)

`heartllm-eval compare --seeds ours=runs/s0,runs/s1,runs/s2 --seeds blind=runs/b0,runs/b1,runs/b2`

A difference is the first side minus the other. All numbers are computed anew from the answers."""


def compare(
    sides: Annotated[
        list[str] | None, typer.Argument(help="RUN, RUN:SYSTEM or FILE, each with LABEL= before it if wanted.")
    ] = None,
    systems: Annotated[
        list[str] | None, typer.Option("--systems", help="Systems of the one run named, separated by commas.")
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option("--seeds", help="NAME=RUN,RUN,...: runs of one recipe with different seeds; repeatable."),
    ] = None,
    references: Annotated[
        Path | None, typer.Option("--references", "-r", help="References, if predictions files are compared.")
    ] = None,
    tasks: Annotated[list[str] | None, typer.Option("--tasks", "-t", help="Only these suites.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", help="Metrics; the first is the primary one. Default: the runs'.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slices", help="What to break down by, or none. Default: the suite's.")
    ] = None,
    every_metric: Annotated[
        bool, typer.Option("--every_metric", help="Differences by slice of every metric, not of the primary only.")
    ] = False,
    all_pairs: Annotated[
        bool, typer.Option("--all_pairs", help="Every pair, not only the first side with each of the others.")
    ] = False,
    intersect: Annotated[
        bool, typer.Option("--intersect", help="If they hold different samples, compare on those that all hold.")
    ] = False,
    missing: Annotated[
        str, typer.Option("--missing", help="Of files. wrong: missing ids count as wrong; error: refuse them.")
    ] = "wrong",
    examples: Annotated[int, typer.Option("--examples", min=0, help="Changed answers shown, each way.")] = 3,
    output_path: Output = None,
    confidence_n: Resamples = 10_000,
    confidence: Confidence = 0.95,
    format: Format = "text",
    verbosity: Verbosity = 1,
) -> None:
    """Compares systems on the same samples: differences with intervals and tests, and the answers that changed.

    With -o, writes compare.json, compare.md, compare.csv, compare.tex and flips.jsonl (every changed answer).
    """
    from heartllm_eval.comparison import pairs, tables
    from heartllm_eval.progress import Progress
    from heartllm_eval.scoring import Options

    check_format(format)
    if missing not in ("wrong", "error"):
        raise UsageError(f"missing={missing!r}", where="--missing", remedy="Choose wrong or error.")
    names = split_names(slices)
    wanted = pairs.Wanted(
        metrics=tuple(split_names(metrics)),
        slices=None if slices is None else tuple(name for name in names if name != "none"),
        every_metric=every_metric,
        all_pairs=all_pairs,
        intersect=intersect,
        options=Options(confidence_n, confidence),
    )
    if output_path is not None:
        _make(output_path)
    say = Progress(verbosity).note
    flips: list[Flip] = []
    if seeds:
        if sides or systems:
            raise UsageError("either sides or --seeds", where="compare", remedy="Compare single runs by themselves.")
        comparison = _seeds(seeds, split_names(tasks), wanted, say)
    else:
        chosen = _sides(sides or [], split_names(systems), references, split_names(tasks), missing)
        comparison, flips = pairs.compare(chosen, wanted, say=say)
    if output_path is not None:
        _write(comparison, flips, output_path, examples)
    if format == "text":
        tables.show(comparison, flips, console(), examples)
    else:
        print(tables.render(comparison, flips, format, examples), end="")


def _sides(
    texts: Sequence[str], systems: Sequence[str], references: Path | None, tasks: Sequence[str], missing: str
) -> list[Side]:
    from dataclasses import replace

    from heartllm_eval.comparison.sides import Reader, parse_spec, with_labels

    if not texts:
        raise UsageError("nothing to compare", where="compare", remedy="Name runs, RUN:SYSTEM, or predictions files.")
    specs = [parse_spec(text) for text in texts]
    if references is not None:
        return _files(specs, references, missing)
    for spec in specs:
        if spec.path.is_file():
            raise UsageError("this is a file", where=spec.path, remedy="Compare files with --references FILE.")
    reader = Reader(tasks)
    if systems or (len(specs) == 1 and specs[0].system is None):
        if len(specs) > 1 or specs[0].system is not None:
            raise UsageError("--systems goes with one run", where="--systems", remedy="Write RUN:SYSTEM for each side.")
        found = systems or reader.systems(specs[0].path)
        if len(found) < 2:
            raise UsageError(
                f"the run has one system only ({', '.join(found)})",
                where=specs[0].path,
                remedy="Name another run beside it, or run it with --controls.",
            )
        specs = [replace(specs[0], text=f"{specs[0].text}:{name}", system=name, label=None) for name in found]
    return with_labels([reader.read(spec) for spec in specs], specs)


def _files(specs: Sequence[Any], references: Path, missing: str) -> list[Side]:
    from heartllm_eval.comparison.sides import side_of_file, with_labels
    from heartllm_eval.references import describe_references, read_references, task_name

    for spec in specs:
        if spec.path.is_dir():
            raise UsageError(
                "a run folder brings its own references", where=spec.path, remedy="Name a predictions file, or leave "
                "out --references."
            )  # fmt: skip
    requests = read_references(references)
    task = task_name(references)
    about = describe_references(task, requests)
    return with_labels([side_of_file(spec, requests, task, about, missing) for spec in specs], specs)


def _seeds(texts: Sequence[str], tasks: Sequence[str], wanted: Any, say: Any) -> Comparison:
    from heartllm_eval.comparison.pairs import of_groups
    from heartllm_eval.comparison.sides import Reader, parse_spec, with_labels

    groups: dict[str, list[Any]] = {}
    for number, text in enumerate(texts, start=1):
        name, equals, runs = text.partition("=")
        name, runs = (name.strip(), runs) if equals else (f"group {number}", text)
        if name in groups:
            raise UsageError(f"the group {name!r} comes twice", where="--seeds", remedy="Give each group its own name.")
        groups[name] = [parse_spec(part.strip()) for part in runs.split(",") if part.strip()]
    reader = Reader(tasks)
    specs = [spec for part in groups.values() for spec in part]
    for spec in specs:
        if spec.path.is_file():
            raise UsageError("this is a file", where=spec.path, remedy="--seeds takes run folders.")
    labelled = iter(with_labels([reader.read(spec) for spec in specs], specs))
    return of_groups({name: [next(labelled) for _ in part] for name, part in groups.items()}, wanted, say=say)


def _write(comparison: Comparison, flips: Sequence[Flip], folder: Path, examples: int) -> None:
    from heartllm_eval.comparison import tables
    from heartllm_eval.schema import dumps

    names = {"compare.json": "json", "compare.md": "markdown", "compare.csv": "csv", "compare.tex": "latex"}
    try:
        for name, form in names.items():
            write_whole(folder / name, tables.render(comparison, flips, form, examples))
        write_whole(folder / "flips.jsonl", "".join(dumps(flip) + "\n" for flip in flips))
    except OSError as error:
        raise _unwritable(folder, error) from None


def _make(folder: Path) -> None:
    """Before anything is computed, so that a folder that cannot be written to is told at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write there ({error.strerror})", where=f"--output_path {folder}", remedy="Choose another folder."
    )


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog=EPILOG)(compare)
