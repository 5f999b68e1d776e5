"""`make bench`'s page: limits, growth and profiles measured, rows of pytest-benchmark's JSON taken up, one table.

    python -m heartllm.performance.page --suite benchmarks.json --out reports/performance

`results.json` holds the figures; README.md and rows.csv follow from it alone. No name of a host or path is kept.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from heartllm.errors import DataError, run_command_line
from heartllm.writing import write_whole

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "neon", "asimd")


def machine_facts() -> dict[str, Any]:
    """Cores, instructions that matter, versions; nothing that names the machine."""
    import torch

    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        text = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = [flag for flag in FLAGS if flag in text]
    return {
        "cores": cores,
        "flags": flags,
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def suite_rows(path: Path) -> list[dict[str, Any]]:
    """What the suite's rows recorded, in its order.

    Raises:
        DataError: if the file is not pytest-benchmark's, or holds no row.
    """
    try:
        found = [one["extra_info"] for one in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"is not pytest-benchmark's JSON ({error})", where=path, remedy="Run make bench.") from None
    rows = [row for row in found if "row" in row]
    if not rows:
        raise DataError("holds no row of the suite", where=path, remedy="Run make bench.")
    return rows


def ratios(row: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Ratio of the medians, and the smallest and largest of the rounds; None for a row without a plain way."""
    seconds = row["seconds"]
    if "plain" not in seconds:
        return None
    each = [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True)]
    return median(seconds["plain"]) / median(seconds["ours"]), min(each), max(each)


def _time(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    ours, found = row["seconds"]["ours"], ratios(row)
    limit = f"{100 * row['share']:.0f} % of {row['limit']}" if "share" in row else "–"
    asked = _number(row.get("least"))
    if row.get("most_seconds") is not None:
        asked += f", under {row['most_seconds']:g} s a run"
    return [
        f"{row['row']} ({row['unit']})",
        f"{_time(median(ours))} [{_time(min(ours))}, {_time(max(ours))}]",
        row.get("plain_is") or "–",
        "–" if found is None else f"{found[0]:.3g} [{found[1]:.3g}, {found[2]:.3g}]",
        asked,
        _number(row.get("aim")),
        limit,
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines) + "\n"


def page(results: Mapping[str, Any]) -> str:
    """The page as Markdown, from `results.json` alone."""
    machine, limits = results["machine"], results["limits"]
    told = (
        f"{machine['cores']} cores ({machine['architecture']}; {', '.join(machine['flags']) or 'no flags known'}), "
        f"{machine['threads']} thread, Python {machine['python']}, torch {machine['torch']}."
    )
    parts = [
        "# Performance\n",
        "Made by `make bench`; every figure follows from results.json. Seconds are processor seconds, medians with the "
        "smallest and largest round in brackets; ratios are the plain way's seconds over ours, both run in turn in one "
        "run. The least ratio is asked of the quickest rounds by `make test`.\n",
        "## Machine\n",
        told + (" **Shortened run: not to be quoted.**" if results.get("quick") else "") + "\n",
        f"Its limits in the same run: {limits['fp32'] / 1e9:.0f} GFLOP/s in fp32, {limits['bf16'] / 1e9:.0f} in bf16"
        f" matrix products, {limits['copy'] / 1e9:.1f} GB/s copied.\n",
        "## Rows\n",
        _table(
            ("row (unit)", "ours", "plain way", "ratio", "least", "aim", "share of limit"),
            [_cells(row) for row in results["rows"]],
        ),
        "## Growth\n",
        "Cost ~ size ^ exponent, by least squares on logarithms; memory is the peak of a process, with what importing "
        "takes.\n",
        _table(
            ("cost against", "sizes", "exponent", "seconds", "peak MB"),
            [_growth_cells(curve) for curve in results["growth"]],
        ),
        "## Where the time goes\n",
    ]
    for title, rows in results["profiles"].items():
        cells = [(f"`{row['operator']}`", f"{100 * row['share']:.1f} %", str(row["calls"])) for row in rows]
        parts += [title[0].upper() + title[1:] + ":\n", _table(("operator", "share", "calls"), cells)]
    return "\n".join(parts)


def _growth_cells(curve: Mapping[str, Any]) -> list[str]:
    points, error = curve["points"], curve["standard_error"]
    return [
        curve["curve"],
        ", ".join(f"{point['size']:,}" for point in points),
        f"{curve['exponent']:.2f}" + (f" +- {error:.2f}" if error is not None else ""),
        ", ".join(f"{point['seconds']:.3g}" for point in points),
        ", ".join(f"{point['peak_bytes'] / 1e6:.0f}" for point in points),
    ]


def rows_csv(results: Mapping[str, Any]) -> str:
    """The rows with unrounded figures."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("row", "unit", "seconds", "plain_seconds", "ratio", "lowest", "highest", "least", "aim", "share"))
    for row in results["rows"]:
        plain = row["seconds"].get("plain")
        values = [median(row["seconds"]["ours"]), median(plain) if plain else "", *(ratios(row) or ("", "", ""))]
        writer.writerow((row["row"], row["unit"], *values, row.get("least"), row.get("aim"), row.get("share", "")))
    return out.getvalue()


def write(results: Mapping[str, Any], out: Path) -> None:
    """Writes results.json and what follows from it."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "results.json", json.dumps(results, indent=1) + "\n")
    write_whole(out / "README.md", page(results))
    write_whole(out / "rows.csv", rows_csv(results))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m heartllm.performance.page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--suite", type=Path, required=True, help="JSON of pytest-benchmark")
    parser.add_argument("--out", type=Path, default=Path("reports/performance"))
    parser.add_argument("--quick", action="store_true", help="two points a curve; the page says so")
    given = parser.parse_args(arguments)
    rows = suite_rows(given.suite)
    from heartllm.performance.growth import growth
    from heartllm.performance.limits import machine_limits
    from heartllm.performance.profiles import profiles

    results = {
        "quick": given.quick,
        "machine": machine_facts(),
        "limits": machine_limits(seconds=0.3 if given.quick else 2.0),
        "rows": rows,
        "growth": growth(quick=given.quick),
        "profiles": profiles(ecgs=1 if given.quick else 4),
    }
    write(results, given.out)
    print(page(results))


if __name__ == "__main__":
    run_command_line(main)
