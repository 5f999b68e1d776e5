"""Bad input by the thousand: `python tests/fuzz/fuzz.py --cases 100000 --seed 0` (`make fuzz`).

Cases of ten kinds of input, each drawn from (seed, kind, number) alone, run in batches, a process each. A batch that is
done is a line of OUT/progress.jsonl, and the same command goes on behind it. A case at fault lies in
OUT/faults/<kind>-<number>/ with its files, what it told and the command that makes it again. At the end stands a table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT), str(ROOT / "eval")]
for _name, _value in (("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false"), ("HF_HUB_OFFLINE", "1")):
    os.environ.setdefault(_name, _value)

MODULE = {
    **dict.fromkeys(("wfdb", "cinc", "csv"), "recordings"),
    **dict.fromkeys(("tables", "ecgqa"), "datasets"),
    **dict.fromkeys(("predictions", "suites"), "harness"),
    "recipes": "settings",
    "checkpoints": "checkpoints",
    "authors": "authors",
}
LIGHT = ("ecgqa", "tables", "predictions", "suites")  # kinds that the base install reads
BATCH = 2500  # cases a process
SILENCE = 60.0  # seconds without a finished case after which a process is taken for dead
MOST = 1000.0  # MB
SPARE = 4 << 30  # bytes of address space beyond what the process has at its start: what no reader may come near


def kind_of(name: str) -> Any:
    """The kind of input of this name."""
    module = importlib.import_module(f"fuzzkit.kinds.{MODULE[name]}")
    return next(kind for kind in module.KINDS if kind.name == name)


def generator(seed: int, name: str, number: int) -> Random:
    """Where all of a case comes from."""
    return Random(f"{seed}/{name}/{number}")


def run_batch(name: str, seed: int, start: int, count: int, out: Path, *, only: int | None = None) -> dict[str, Any]:
    """Runs cases start ... start + count - 1 of a kind in this process; returns their line of the progress file."""
    from fuzzkit.files import listing, remove, write
    from fuzzkit.watch import Watch, peak

    kind = kind_of(name)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    results: Counter[str] = Counter()
    slowest, faults, slow = 0.0, list[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=shared) as scratch:
        work = Path(os.path.realpath(scratch))
        (work / "outside").mkdir()
        (work / "outside" / "secret").write_text("not yours")
        os.chdir(work)
        _warm(kind, work)
        watch = Watch(work, elsewhere=kind.elsewhere)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, resource.getrlimit(resource.RLIMIT_AS)[1]))
        before = listing(work)
        for number in range(start, start + count) if only is None else (only,):
            rng = generator(seed, name, number)
            files, must_read = kind.case(rng, number)
            folder = work / f"case{number}"
            write(files, folder)
            held, memory = listing(folder), peak()
            names = (str(folder), *(Path(part).name for part in files), *kind.also)
            outcome = watch.run(lambda folder=folder, rng=rng: kind.read(folder, rng), names, must_read=must_read)
            result = outcome.result
            if listing(folder) != held:
                result = "outside"
            elif outcome.megabytes > MOST and outcome.megabytes > memory + 50:
                result = "memory"
            remove(folder)
            if listing(work) != before:
                result = "outside"
            results[result] += 1
            slowest = max(slowest, outcome.seconds)
            if outcome.seconds > 1:
                slow.append(f"{name}-{number}: {outcome.seconds:.1f} s")
            if result not in ("read", "refused"):
                faults.append(f"{name}-{number}")
                _keep(out, name, seed, number, files, result, outcome.told)
            print(number, flush=True)
        os.chdir(ROOT)
        if only is not None:
            print(result, outcome.told, f"{outcome.seconds:.2f} s, {outcome.megabytes:.0f} MB", sep="\n")
    return {
        "kind": name, "seed": seed, "start": start, "count": count, "results": dict(results),
        "faults": faults, "slow": slow,        "slowest": round(slowest, 3), "megabytes": round(peak(), 1),
    }  # fmt: skip


def _warm(kind: Any, work: Path) -> None:
    """Reads every valid case before the watch begins: imports on first use, and their compiled files, are no fault."""
    from fuzzkit.files import write

    for number, files in enumerate(kind.valid):
        write(files, work / "outside" / f"warm{number}")
        for seed in range(3):
            kind.read(work / "outside" / f"warm{number}", Random(seed))


def _keep(out: Path, name: str, seed: int, number: int, files: Any, result: str, told: str) -> None:
    """Keeps a case at fault, and how it is made again."""
    from fuzzkit.files import Special, write

    folder = out / "faults" / f"{name}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    again = f"python tests/fuzz/fuzz.py --seed {seed} --again {name} {number}"
    (folder / "told.txt").write_text(f"{result}\n{again}\n\n{told}\n", encoding="utf-8", errors="backslashreplace")
    if not (folder / "files").exists():
        with suppress(OSError, ValueError):
            write({part: held for part, held in files.items() if not isinstance(held, Special)}, folder / "files")


def batches(kinds: list[str], cases: int) -> Iterator[tuple[str, int, int]]:
    """(kind, start, count): the same share of each kind, kinds in turn."""
    share = -(-cases // len(kinds))
    for start in range(0, share, BATCH):
        for name in kinds:
            yield name, start, min(BATCH, share - start)


def run_process(name: str, seed: int, start: int, count: int, out: Path) -> dict[str, Any]:
    """Runs a batch in a process of its own. One that dies or stops is a fault of the case that it was at."""
    line = out / f"batch-{os.getpid()}.json"
    command = [
        sys.executable,
        __file__,
        "--seed",
        str(seed),
        "--out",
        str(out),
        "--batch",
        name,
        str(start),
        str(count),
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as heard:
        process = subprocess.Popen([*command, str(line)], stdout=said, stderr=heard, env=environment, cwd=ROOT)
        size, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            if (now := os.fstat(said.fileno()).st_size) != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > SILENCE + (120 if not size else 0):
                process.kill()
                process.wait()
        said.seek(0)
        finished = [int(number) for number in said.read().split() if number.isdigit()]
        heard.seek(0)
        last = heard.read().decode("utf-8", "replace")[-3000:]
    if process.returncode == 0:
        result: dict[str, Any] = json.loads(line.read_text())
        line.unlink()
        return result
    dead = finished[-1] + 1 if finished else start
    _keep(out, name, seed, dead, {}, "died", f"the process ended with {process.returncode}\n{last}")
    done = {"read": len(finished), "died": 1}  # how the finished ones ended is lost with the process
    rest = start + count - dead - 1
    if rest and finished:
        other = run_process(name, seed, dead + 1, rest, out)
        total = Counter(done) + Counter(other["results"])
        return {
            **other,
            "start": start,
            "count": count,
            "results": total,
            "faults": [f"{name}-{dead}", *other["faults"]],
        }
    return {
        "kind": name, "seed": seed, "start": start, "count": count, "results": done, "faults": [f"{name}-{dead}"],
        "slowest": SILENCE, "megabytes": 0.0,
    }  # fmt: skip


def summary(lines: list[dict[str, Any]], kinds: list[str]) -> list[dict[str, Any]]:
    """A row a kind."""
    rows = []
    for name in kinds:
        own = [line for line in lines if line["kind"] == name]
        results = sum((Counter(line["results"]) for line in own), Counter[str]())
        rows.append(
            {
                "kind": name,
                "cases": results.total(),
                "refused": results["refused"],
                "read": results["read"],
                "unhandled": results.total() - results["refused"] - results["read"] - results["hang"],
                "hangs": results["hang"],
                "slowest_s": max((line["slowest"] for line in own), default=0.0),
                "peak_mb": max((line["megabytes"] for line in own), default=0.0),
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]], seed: int) -> str:
    """The table."""
    text = [
        "# Bad input by the thousand",
        "",
        *textwrap.wrap(
            "Written by `make fuzz`. Small valid files of each kind are spoilt (bytes, lines, cells, trees, headers, "
            "links, hashes made right again) and given to the reader that a command would call. A case passes when the "
            "reader returns, or refuses in one line that names the file, within 5 s and 1 GB, and writes, starts and "
            f"opens nothing elsewhere. Every fiftieth case is left as it is and must be read. Seed {seed}.",
            width=120,
        ),
        "",
        "| kind | cases | refused | read | unhandled | hangs | slowest, s | peak, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = {name: sum(row[name] for row in rows) for name in ("cases", "refused", "read", "unhandled", "hangs")}
    total |= {"kind": "all", **{name: max(row[name] for row in rows) for name in ("slowest_s", "peak_mb")}}
    for row in (*rows, total):
        text.append(
            f"| {row['kind']} | {row['cases']:,} | {row['refused']:,} | {row['read']:,} | {row['unhandled']:,} "
            f"| {row['hangs']:,} | {row['slowest_s']:.2f} | {row['peak_mb']:,.0f} |"
        )
    return "\n".join(text) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(MODULE), help="with commas between them")
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "fuzz", help="progress and cases at fault")
    parser.add_argument("--table", type=Path, help="write TABLE.md and TABLE.json")
    parser.add_argument("--again", nargs=2, metavar=("KIND", "NUMBER"), help="one case, in this process")
    parser.add_argument("--batch", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    out, seed = given.out.resolve(), given.seed
    out.mkdir(parents=True, exist_ok=True)
    if given.again:
        run_batch(given.again[0], seed, 0, 1, out, only=int(given.again[1]))
        return 0
    if given.batch:
        name, start, count, line = given.batch
        result = run_batch(name, seed, int(start), int(count), out)
        Path(line).write_text(json.dumps(result))
        return 0
    kinds, progress = given.kinds.split(","), out / "progress.jsonl"
    lines = [json.loads(text) for text in progress.read_text().splitlines()] if progress.exists() else []
    plan = list(batches(kinds, given.cases))
    known = {(line["kind"], line["start"], line["count"]): line for line in lines if line["seed"] == seed}
    done = [known[key] for key in plan if key in known]
    for key in plan:
        if key in known:
            continue
        done.append(run_process(key[0], seed, key[1], key[2], out))
        with progress.open("a") as stream:
            stream.write(json.dumps(done[-1]) + "\n")
        print(f"{key[0]} {key[1]}: {dict(done[-1]['results'])} {' '.join(done[-1]['faults'][:5])}", flush=True)
    rows = summary(done, kinds)
    print(markdown(rows, seed))
    if given.table:
        given.table.with_suffix(".md").write_text(markdown(rows, seed))
        given.table.with_suffix(".json").write_text(json.dumps({"seed": seed, "kinds": rows}, indent=1) + "\n")
    return int(any(line["faults"] for line in done) or any(row["peak_mb"] > MOST for row in rows))


if __name__ == "__main__":
    sys.exit(main())
