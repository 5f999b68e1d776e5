"""`heartllm-eval report`: tables, figures, claims and the results page from frozen runs and figure data; and its check.

reports/paper.toml, published.toml, runs/, figures/data/   what is read
reports/tables/, figures/*.{svg,png,csv}, claims.md, README.md   what is made
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartllm.errors import DataError
from heartllm.writing import write_whole
from heartllm_eval.paper import claims, figures, page, published, tables
from heartllm_eval.paper.evidence import Block, Runs
from heartllm_eval.paper.plan import Plan
from heartllm_eval.paper.tables import Made
from heartllm_eval.scoring import Options

RUNS, TABLES, FIGURES, PUBLISHED = "runs", "tables", "figures", "published.toml"
CLAIMS, PAGE = "claims.md", "README.md"


@dataclass(frozen=True)
class Built:
    """What was made: the tables, and the paths of all files below the output folder."""

    made: Mapping[str, Made]
    files: tuple[Path, ...]
    drawn: bool


def build(
    plan: Plan,
    source: Path,
    out: Path,
    *,
    options: Options | None = None,
    complete: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Built:
    """Makes everything.

    Args:
        source: the reports folder that is read. out: the folder that is written; may be the same.
        complete: refuse rows that were not run.

    Raises:
        HeartLLMError: for runs that may not stand beside each other, and for what was changed.
    """
    runs, theirs = Runs(source / RUNS), published.load(source / PUBLISHED, plan)
    made = {}
    for table in plan.tables:
        made[table.name] = tables.make(plan, table, runs, theirs, options=options, complete=complete)
        say(f"{table.title}: {len(made[table.name].blocks)} of {len(table.suites)} parts")
    data = source / FIGURES / figures.DATA
    written: dict[str, str] = {}
    for name, table_made in made.items():
        for ending, text in (("md", table_made.markdown()), ("csv", table_made.csv()), ("tex", table_made.latex())):
            written[f"{TABLES}/{name}.{ending}"] = text
    found = claims.judge(plan, made, data)
    written[CLAIMS] = claims.markdown(found)
    written[PAGE] = page.markdown(plan, made, found, runs, data)
    out.mkdir(parents=True, exist_ok=True)
    try:
        for name, text in written.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
        drawn = figures.drawable()
        names = figures.draw_all(plan, _blocks(made), data, out / FIGURES) if drawn else []
    except OSError as error:
        raise DataError(f"cannot write there ({error.strerror})", where=out, remedy="Choose another folder.") from None
    say(f"{len(names)} figures" if drawn else "figures are not drawn: matplotlib is not installed")
    files = [*written, *(f"{FIGURES}/{name}.{ending}" for name in names for ending in ("csv", "png", "svg"))]
    return Built(made, tuple(Path(name) for name in sorted(files)), drawn)


def _blocks(made: Mapping[str, Made]) -> dict[str, Sequence[Block]]:
    return {name: part.blocks for name, part in made.items()}


def check(plan: Plan, source: Path, *, options: Options | None = None, say: Callable[[str], object] = print) -> None:
    """Makes everything in a temporary folder and holds it against what is committed.

    Raises:
        DataError: naming every file that differs, lacks or is left over.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = build(plan, source, Path(folder), options=options)
        wrong = [
            f"{path} {why}"
            for path in made.files
            if (why := _difference(Path(folder) / path, source / path)) is not None
        ]
    expected = {path.as_posix() for path in made.files}
    kinds = {TABLES: ("md", "csv", "tex"), **({FIGURES: ("svg", "png", "csv")} if made.drawn else {})}
    for name, endings in kinds.items():
        there = [path for ending in endings for path in (source / name).glob(f"*.{ending}")]
        wrong += [f"{name}/{path.name} is left over" for path in sorted(there) if f"{name}/{path.name}" not in expected]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(made.files)} files are not what the frozen runs say: {'; '.join(wrong)}",
            where=source,
            remedy="Make them again and commit them: heartllm-eval report.",
        )
    say(f"{len(made.files)} files are what the frozen runs say{'' if made.drawn else ' (figures not checked)'}")


def _difference(fresh: Path, committed: Path) -> str | None:
    """Why a file is not the committed one; None if it is. A picture may differ in its bytes, not in what it shows."""
    if not committed.is_file():
        return "is missing"
    if fresh.read_bytes() == committed.read_bytes():
        return None
    if fresh.suffix == ".png":
        import matplotlib.image
        import numpy as np

        ours, theirs = matplotlib.image.imread(fresh), matplotlib.image.imread(committed)
        if ours.shape == theirs.shape and np.array_equal(ours, theirs):
            return None
        return "shows something else"
    return "differs"
