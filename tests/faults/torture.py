"""Kills every stage again and again, starts it again, and holds what it leaves against an undisturbed run.

    python tests/faults/torture.py --kills 300 --seed 0 --work .cache/torture --out reports

A case is one folder: a stage's command is started in it, killed at a drawn moment, and started again until it ends. The
cases' results are kept in WORK/progress.json, so that the same call goes on after the last whole case. `make torture`
is this call; `test_kills.py` makes it with a few kills.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import children
import stages
from children import Moment, apart, draw
from stages import Seen, Stage

MOST_STARTS = 60  # of one case, before it is called endless
COUNTS = ("kills", "starts", "losses", "doubled", "corrupt", "different", "failed")


@dataclass
class Case:
    """What one folder has seen.

    Attributes:
        losses: facts reported done that were gone, or other ones, after a later start.
        doubled: samples more than once. corrupt: times that something was taken for whole and was not.
        different: final files and figures that the undisturbed run has otherwise. failed: starts that ended in
            an error.
        notes: what went wrong, in words.
    """

    stage: str
    number: int
    kills: int = 0
    starts: int = 0
    losses: int = 0
    doubled: int = 0
    corrupt: int = 0
    different: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """How a stage goes when nothing happens."""

    seconds: float
    changes: int
    result: dict[str, str]
    accepted: str | None


def undisturbed(stage: Stage, base: Path) -> Undisturbed:
    """Runs the stage once, in the folder that later stages read, unless it is there already."""
    told = base / f"{stage.name}.json"
    if told.exists():
        return Undisturbed(**json.loads(told.read_text(encoding="utf-8")))
    out = base / stage.name
    shutil.rmtree(out, ignore_errors=True)
    ended = children.run(stage.command(base, out), out, base / f"{stage.name}.log")
    if ended.code != 0:
        raise SystemExit(f"{stage.title}: the undisturbed run ended with {ended.code}\n{ended.output}")
    seen = look(stage, out)
    found = Undisturbed(ended.seconds, ended.changes, apart(lambda: stage.result(out)), seen.accepted)
    told.write_text(json.dumps(asdict(found)), encoding="utf-8")
    if stage.name == "frozen":  # the report reads it
        shutil.copytree(out, base / "reports" / "runs" / "ours", dirs_exist_ok=True)
    return found


def look(stage: Stage, out: Path) -> Seen:
    return Seen(**apart(lambda: asdict(stage.look(out))))


def lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of facts that a later look does not confirm."""
    return [
        name
        for name, value in before.items()
        if (after.get(name, 0) < value if isinstance(value, int) else after.get(name) != value)
    ]


def torture(stage: Stage, number: int, kills: int, seed: int, base: Path, work: Path) -> Case:
    """One case, of at most so many kills."""
    generator = random.Random(f"{seed} {stage.name} {number}")
    whole, case = undisturbed(stage, base), Case(stage.name, number)
    out = work / "cases" / f"{stage.name}-{number}"
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    log, known = out.with_suffix(".log"), dict[str, Any]()
    while True:
        moment = draw(generator, whole.seconds, whole.changes) if case.kills < kills else Moment()
        ended = children.run(stage.command(base, out), out, log, moment)
        case.starts += 1
        case.kills += ended.code is None
        seen = look(stage, out)
        _judge(case, moment, known, seen, whole)
        known = dict(seen.done)
        if ended.code not in (None, 0):
            case.failed += 1
            case.notes.append(f"start {case.starts} ended with {ended.code}: {ended.output[-1500:]}")
            return case
        if ended.code == 0:
            break
        if case.starts > MOST_STARTS:
            case.failed += 1
            case.notes.append("it does not end")
            return case
    result = apart(lambda: stage.result(out))
    other = sorted(name for name in {*result, *whole.result} if result.get(name) != whole.result.get(name))
    case.different = len(other)
    case.notes += [f"other than undisturbed: {', '.join(other[:8])}"] if other else []
    left = [path.relative_to(out).as_posix() for path in out.rglob(".*") if path.is_file() and path.name != ".lock"]
    case.notes += [f"left over: {', '.join(sorted(left)[:5])}"] if left else []
    if not case.notes:
        shutil.rmtree(out)
        log.unlink(missing_ok=True)
    return case


def _judge(case: Case, moment: Moment, known: Mapping[str, Any], seen: Seen, whole: Undisturbed) -> None:
    gone = lost(known, seen.done)
    case.losses += len(gone)
    case.doubled += seen.doubled
    place = f"start {case.starts} ({moment.when} {moment.at:.3g})"
    if gone:
        case.notes.append(f"{place}: lost {', '.join(gone[:8])}")
    wrong = [
        name
        for name, value in seen.done.items()
        if name.startswith("file/") and value != whole.result.get(name.removeprefix("file/"))
    ]
    if wrong or (seen.accepted is not None and whole.accepted is not None and seen.accepted != whole.accepted):
        case.corrupt += 1
        case.notes.append(f"{place}: taken for whole and is not: {', '.join(wrong[:8])}")


def all_cases(
    chosen: Sequence[Stage], kills: int, seed: int, work: Path, most: float = float("inf")
) -> Iterator[list[Case]]:
    """The cases so far, after each: `kills` over the stages, evenly, until all are done or `most` seconds are over."""
    progress = work / "progress.json"
    cases = [Case(**case) for case in json.loads(progress.read_text())] if progress.exists() else []
    stages.write_inputs(work / "base")
    last = max(stages.STAGES.index(stage) for stage in chosen)
    for stage in stages.STAGES[: last + 1]:  # each needs those before it
        undisturbed(stage, work / "base")
    wanted = {stage.name: kills // len(chosen) + (i < kills % len(chosen)) for i, stage in enumerate(chosen)}
    yield cases
    until = time.monotonic() + most  # the undisturbed runs are not counted, so that every call gets on
    while time.monotonic() < until:
        done = {stage.name: sum(case.kills for case in cases if case.stage == stage.name) for stage in chosen}
        open_ones = [stage for stage in chosen if done[stage.name] < wanted[stage.name]]
        if not open_ones:
            return
        stage = min(open_ones, key=lambda stage: done[stage.name] / wanted[stage.name])
        number = sum(case.stage == stage.name for case in cases)
        left = wanted[stage.name] - done[stage.name]
        cases.append(torture(stage, number, left, seed, work / "base", work))
        part = progress.with_suffix(".part")
        part.write_text(json.dumps([asdict(case) for case in cases], indent=1), encoding="utf-8")
        part.replace(progress)
        yield cases


def table(cases: Sequence[Case], chosen: Sequence[Stage], seed: int) -> dict[str, Any]:
    """What is written as JSON: a row a stage, and the sums."""
    rows = [
        {"stage": stage.title, "cases": len(own), **{name: sum(getattr(case, name) for case in own) for name in COUNTS}}
        for stage in chosen
        if (own := [case for case in cases if case.stage == stage.name])
    ]
    total = {name: sum(row[name] for row in rows) for name in ("cases", *COUNTS)}
    return {"seed": seed, "rows": rows, "total": total, "notes": [note for case in cases for note in case.notes]}


PAGE = """# Kills

{total[kills]} kills by SIGKILL over {stages} stages (`make torture KILLS={kills} SEED={seed}`), at moments drawn over
the undisturbed run's length: half by time, half just before or after a change in the output folder. After each the
same command is started again until it ends.

Losses: things reported done that a later start no longer had. Doubled: samples that were there twice. Corrupt: times
that something half-written was taken for whole. Failed: starts that ended in an error. Identical: cases whose final
files and figures are those of the undisturbed run, times and paths left out.

| stage | cases | kills | starts | losses | doubled samples | corrupt files accepted | failed | identical |
|---|---|---|---|---|---|---|---|---|
{rows}

Made by `tests/faults/torture.py`; the numbers are in [faults.json](faults.json).
"""


def page(found: Mapping[str, Any], cases: Sequence[Case], kills: int) -> str:
    """The same as Markdown."""
    names = {stage.title: stage.name for stage in stages.STAGES}
    lines = []
    for row in [*found["rows"], {"stage": "**all**", **found["total"]}]:
        own = [case for case in cases if row["stage"] == "**all**" or case.stage == names[row["stage"]]]
        same = sum(not case.different and not case.failed for case in own)
        cells = [row[name] for name in ("stage", "cases", "kills", "starts", "losses", "doubled", "corrupt", "failed")]
        lines.append("| " + " | ".join(str(cell) for cell in (*cells, f"{same} of {len(own)}")) + " |")
    return PAGE.format(
        total=found["total"], stages=len(found["rows"]), kills=kills, seed=found["seed"], rows="\n".join(lines)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(stage.name for stage in stages.STAGES))
    parser.add_argument("--work", type=Path, default=Path(".cache/torture"))
    parser.add_argument("--out", type=Path, help="folder for faults.md and faults.json, once all is done")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so long")
    given = parser.parse_args()
    chosen = [stage for stage in stages.STAGES if stage.name in given.stages.split(",")]
    work = (given.work / f"seed-{given.seed}").absolute()
    children.warm()
    stages.make_small()
    cases: list[Case] = []
    started = time.monotonic()
    for cases in all_cases(chosen, given.kills, given.seed, work, given.seconds):
        if cases:
            last, killed = cases[-1], sum(case.kills for case in cases)
            print(f"{time.monotonic() - started:6.0f} s  {killed} of {given.kills} kills; {last}", flush=True)
    found = table(cases, chosen, given.seed)
    if given.out is not None and found["total"]["kills"] >= given.kills:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "faults.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (given.out / "faults.md").write_text(page(found, cases, given.kills), encoding="utf-8")
    print(json.dumps(found["total"]))
    return int(any(found["total"][name] for name in ("losses", "doubled", "corrupt", "different", "failed")))


if __name__ == "__main__":
    sys.exit(main())
