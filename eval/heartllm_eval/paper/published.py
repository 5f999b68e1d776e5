"""Scores that others have published, as a human wrote them down, each with its source. The file is shipped empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heartllm import config
from heartllm.errors import UsageError
from heartllm_eval.paper.plan import Plan


@dataclass(frozen=True)
class Score:
    """One published number.

    Attributes:
        row: the row's name. suite: the suite that comes nearest to what was scored. column: as in our table.
        value: as printed.
        source: who published it, so that a reader can find it. table: which of its tables or pages.
        date: when it was copied, YYYY-MM-DD. by: who copied it.
        protocol: how theirs differs from ours, in a few words.
    """

    row: str
    suite: str
    column: str
    value: float
    source: str
    table: str
    date: str
    by: str
    protocol: str


@dataclass(frozen=True)
class Published:
    """The file."""

    scores: tuple[Score, ...] = ()

    def of(self, row: str, suite: str) -> list[Score]:
        """What is published of a row on a suite."""
        return [score for score in self.scores if (score.row, score.suite) == (row, suite)]


def load(path: Path, plan: Plan) -> Published:
    """Reads `published.toml`; nothing where there is no file.

    Raises:
        UsageError: for an entry without provenance, and for one of an unknown row, suite or column.
    """
    if not path.is_file():
        return Published()
    values = config.read_toml(path)
    if "score" in values:
        values["scores"] = values.pop("score")
    found = config.from_dict(Published, values, where=path)
    rows = [row.name for row in plan.rows]
    suites = {suite for table in plan.tables for suite in table.suites}
    columns = {column.name for table in plan.tables for column in table.columns}
    for number, score in enumerate(found.scores, start=1):
        place = f"{path}: score {number}"
        for name in ("source", "table", "date", "by", "protocol"):
            if not getattr(score, name).strip():
                raise UsageError(f"no {name}", where=place, remedy="A published number needs its provenance.")
        _known("row", score.row, rows, place)
        _known("suite", score.suite, sorted(suites), place)
        _known("column", score.column, sorted(columns), place)
    return found


def _known(what: str, name: str, names: Sequence[str], place: str) -> None:
    if name not in names:
        raise UsageError(f"unknown {what} {name!r}", where=place, remedy=f"Choose one of: {', '.join(names)}.")
