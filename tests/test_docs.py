"""The documentation's site: every page is in the navigation, examples of the metrics page are true, the notebook runs.

Links, paths and commands of the pages are checked with all documents in tests/test_readme.py.
"""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_examples_of_the_metrics_page_are_true(repository: Path) -> None:
    found = doctest.testfile(str(repository / "docs" / "metrics.md"), module_relative=False)
    assert found.attempted >= 15
    assert found.failed == 0


def test_navigation_names_every_page(repository: Path) -> None:
    named = re.findall(r"^  - .+: (\S+\.md)$", (repository / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    docs = repository / "docs"
    assert sorted(named) == sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))


def test_api_page_names_what_is_there(repository: Path) -> None:
    from importlib import import_module

    names = re.findall(r"^::: (\S+)$", (repository / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    for name in names:
        module, _, member = name.rpartition(".")
        if module == "heartllm.responder" or module == "heartllm.checkpoint":
            pytest.importorskip("torch", reason="needs the model stack")
        assert getattr(import_module(module), member).__doc__, name


@pytest.mark.slow
def test_site_builds_strictly(repository: Path, tmp_path: Path) -> None:
    """No page, link, anchor or API entry is missing. (tox's docs environment builds the same.)"""
    pytest.importorskip("mkdocstrings", reason="needs the docs extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "site" / "metrics" / "index.html").is_file()


def test_notebook_holds_no_outputs(repository: Path) -> None:
    cells = json.loads((repository / "docs/notebooks/first_look.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.model
def test_notebook_runs_from_top_to_bottom(repository: Path, tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient", reason="needs the dev extra")
    pytest.importorskip("ipykernel", reason="needs the dev extra")
    import nbformat

    notebook = nbformat.read(repository / "docs/notebooks/first_look.ipynb", as_version=4)
    (tmp_path / "reports").symlink_to(repository / "reports")
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        out.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for out in cell["outputs"]
    )
    assert "exact_match.strict" in printed
