"""`ls snomed`: the table that other sites' questions rest on, for a reader to check."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartllm_eval import cli


def test_the_table_and_what_is_at_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # the terminal's width decides what is cut
    listed = CliRunner().invoke(cli.app, ["ls", "snomed"], env={"HEARTLLM_DATA": ""}).output
    assert "164889003" in listed
    assert "atrial fibrillation" in listed
    assert "georgia" not in listed
    site = tmp_path / "other_sites" / "georgia"
    site.mkdir(parents=True)
    (site / "E1.hea").write_text("E1 12 500 5000\n# Dx: 164889003,123\n")
    shown = CliRunner().invoke(cli.app, ["ls", "snomed", "--data_root", str(tmp_path)]).output
    assert "georgia" in shown
    assert "(no counterpart: not asked about)" in shown
    line = next(line for line in shown.splitlines() if line.startswith("164889003"))
    assert line.rstrip().endswith("1")
