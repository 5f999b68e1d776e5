"""The worked example of the base install: a fresh environment without torch scores a file of predictions.

The environment is a new one that sees nothing of this one's packages but what the base install requires: links to
those, by their own lists of files. So the test needs no network, and torch cannot be there by chance.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import venv
from importlib import metadata
from pathlib import Path

import pytest

from heartllm_eval.schema import dumps
from heartllm_eval.testing import invented_requests

pytestmark = pytest.mark.slow
NAME = re.compile(r"[A-Za-z0-9._-]+")
HEAVY = ("torch", "transformers", "scipy", "wfdb", "pandas", "matplotlib", "sklearn")


def base_requirements(name: str, found: dict[str, metadata.Distribution]) -> None:
    """Adds a distribution and what it requires, extras left out, by name."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    try:
        found[key] = metadata.distribution(name)
    except metadata.PackageNotFoundError:  # required on other systems or Pythons only
        return
    for line in found[key].requires or ():
        required, _, marker = line.partition(";")
        match = NAME.match(required)
        if match and "extra" not in marker:
            base_requirements(match.group(), found)


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Links a distribution's top-level files and folders into another environment."""
    root = Path(str(distribution.locate_file("")))
    for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
        if (root / top).exists() and not (site / top).exists():
            (site / top).symlink_to(root / top)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The bin folder of an environment with the wheel's two packages and the base requirements."""
    if os.name == "nt":
        pytest.skip("links need rights on Windows")
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    found: dict[str, metadata.Distribution] = {}
    base_requirements("heartllm", found)
    own = found.pop("heartllm")
    assert {"numpy", "nltk", "sacrebleu", "typer"} <= set(found)
    for distribution in found.values():
        link(distribution, site)
    import heartllm
    import heartllm_eval

    for package in (heartllm, heartllm_eval):
        home = Path(str(package.__file__)).parent
        (site / home.name).symlink_to(home)
    command = next(point for point in own.entry_points if point.name == "heartllm-eval")
    module, _, function = command.value.partition(":")
    script = folder / "bin" / "heartllm-eval"
    script.write_text(
        f"#!{folder / 'bin' / 'python'}\nfrom {module} import {function}\n{function}()\n", encoding="utf-8"
    )
    script.chmod(0o755)
    return folder / "bin"


def call(fresh: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(part) for part in arguments], capture_output=True, text=True, check=False, timeout=300, env=clean
    )


def test_nothing_heavy_is_there(fresh: Path) -> None:
    code = f"import importlib.util as u; print([m for m in {HEAVY} if u.find_spec(m)])"
    assert call(fresh, fresh / "python", "-c", code).stdout.strip() == "[]"


def test_a_predictions_file_is_scored(fresh: Path, tmp_path: Path) -> None:
    requests = invented_requests("test", patients=40)
    references, answers = tmp_path / "references.jsonl", tmp_path / "answers.csv"
    references.write_text("".join(dumps(request) + "\n" for request in requests), encoding="utf-8")
    rows = [f"{r.id},{'?' if i % 4 == 0 else '; '.join(r.references)}\n" for i, r in enumerate(requests)]
    answers.write_text("id,prediction\n" + "".join(rows), encoding="utf-8")
    began = time.monotonic()
    done = call(fresh, fresh / "heartllm-eval", "score", answers, "--references", references, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "75.0" in done.stdout
    assert time.monotonic() - began < 120
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    overall = next(f for f in record["figures"] if f["metric"] == "exact_match.strict" and f["slice"] == "all")
    assert (overall["value"], overall["n"], overall["clusters"]) == (75.0, 240, 40)


def test_reports_are_scored_too(fresh: Path, tmp_path: Path) -> None:
    references, answers = tmp_path / "references.jsonl", tmp_path / "answers.jsonl"
    texts = ["sinus rhythm. normal ecg", "atrial fibrillation", "left bundle branch block. sinus rhythm"] * 8
    references.write_text(
        "\n".join(json.dumps({"id": str(i), "report": text, "patient_id": str(i)}) for i, text in enumerate(texts))
    )
    answers.write_text("\n".join(json.dumps({"id": str(i), "prediction": text}) for i, text in enumerate(texts)))
    done = call(fresh, fresh / "heartllm-eval", "score", answers, "-r", references, "--format", "json")
    assert done.returncode == 0, done.stderr
    values = {f["metric"]: f["value"] for f in json.loads(done.stdout)["figures"] if f["slice"] == "all"}
    assert values["rouge.standard/rougeL"] == pytest.approx(100)


def test_what_needs_the_model_stack_says_so(fresh: Path, tmp_path: Path) -> None:
    for kind, given in (("heartllm", f"checkpoint={tmp_path}"), ("hf", f"model={tmp_path}")):
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        done = call(
            fresh, fresh / "heartllm-eval", "run", "-M", kind, "-a", given, "-t", "ptbxl_qa", "-o", tmp_path / "run"
        )
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
