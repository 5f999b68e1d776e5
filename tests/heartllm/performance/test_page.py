"""The page follows from its figures, names no machine, and the committed one is what the committed figures give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import DataError
from heartllm.performance.page import page, ratios, rows_csv, suite_rows, write

ROOT = Path(__file__).resolve().parents[3]
ROW: dict[str, Any] = {
    "row": "reading", "unit": "recording", "plain_is": "wfdb", "least": 5.0, "aim": None, "most_seconds": 2.0,
    "seconds": {"ours": [1e-3, 2e-3, 3e-3], "plain": [8e-3, 2e-2, 6e-3]}, "share": 0.25, "limit": "fp32",
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "quick": True,
    "machine": {"cores": 2, "flags": ["avx2"], "architecture": "x", "python": "3", "torch": "2", "threads": 1},
    "limits": {"fp32": 1e11, "bf16": 1e12, "copy": 5e9},
    "rows": [ROW],
    "growth": [
        {"curve": "recordings", "exponent": 1.01, "standard_error": 0.02, "points": [
            {"size": 1000, "seconds": 1.5, "peak_bytes": 3e8}]}
    ],
    "profiles": {"tuning step": [{"operator": "aten::mm", "share": 0.5, "calls": 7}]},
}  # fmt: skip


def test_a_row_tells_medians_spread_ratio_and_what_is_asked() -> None:
    assert ratios(ROW) == pytest.approx((4.0, 2.0, 10.0))
    assert ratios({"seconds": {"ours": [1.0]}}) is None
    text = page(RESULTS)
    cells = "2 ms [1 ms, 3 ms] | wfdb | 4 [2, 10] | 5, under 2 s a run | – | 25 % of fp32 |"
    assert cells in text
    assert "100 GFLOP/s in fp32, 1000 in bf16" in text
    assert "1.01 +- 0.02" in text
    assert "`aten::mm` | 50.0 % | 7" in text
    assert "Shortened run" in text
    assert "Shortened" not in page({**RESULTS, "quick": False})
    assert rows_csv(RESULTS).splitlines()[1].startswith("reading,recording,0.002,0.008,4.0,2.0,10.0")


def test_only_rows_are_taken_from_the_suite(tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    told = {"machine_info": {"node": "secret"}, "benchmarks": [{"extra_info": ROW}, {"extra_info": {}}]}
    suite.write_text(json.dumps(told))
    assert suite_rows(suite) == [ROW]
    for text in ("no json", "{}", '{"benchmarks": []}'):
        suite.write_text(text)
        with pytest.raises(DataError, match="make bench"):
            suite_rows(suite)


def test_the_committed_page_is_what_the_figures_give(tmp_path: Path) -> None:
    write(RESULTS, tmp_path)
    folders = [tmp_path, *(ROOT / "reports").glob("performance")]
    for folder in folders:
        if (folder / "results.json").is_file():
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            assert (folder / "README.md").read_text(encoding="utf-8") == page(results)
            assert (folder / "rows.csv").read_text(encoding="utf-8") == rows_csv(results)
