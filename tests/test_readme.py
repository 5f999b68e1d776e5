"""The documents are true: links and paths lead somewhere, commands run or at least parse.

Code blocks are told apart by their info string. A `sh run` block is executed as it stands, in a folder that shows the
repository's files and takes what the commands write. Any other `sh` block is checked line by line: the program is
known, and its options, choices and number of arguments fit the program's own command line. `python` blocks compile,
`toml` and `json` blocks parse; `python run` is executed.
"""

from __future__ import annotations

import enum
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from heartllm.config import read_toml, tomllib

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "reports/*.md", "reports/*/*.md", "reports/*/*/*.md")
    for path in ROOT.glob(pattern)
)
OUR_PROGRAMS = {"heartllm": "heartllm.cli", "heartllm-eval": "heartllm_eval.cli"}
# Everybody's programs: their arguments are not ours to check.
OTHER_PROGRAMS = {
    "git",
    "cd",
    "pip",
    "tox",
    "export",
    "mkdir",
    ".ci/run",
    "cat",
    "head",
    "pytest",
    "ruff",
    "mypy",
    "lint-imports",
    "python",
    "curl",
    "vllm",
}


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str) -> list[Block]:
    """The fenced code blocks of a Markdown file."""
    found, opened = [], None
    lines: list[str] = []
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), 1):
        if opened is None and (match := re.match(r"^\s*```(\S*)\s*(.*)$", line)):
            opened, lines = (number, match[1], match[2].split()), []
        elif opened is not None and line.strip() == "```":
            found.append(Block(document, opened[0], opened[1], tuple(opened[2]), "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line)
    assert opened is None, f"{document}:{opened and opened[0]}: a code block is not closed"
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block as words: continued lines joined, comments, prompts and VARIABLE=value dropped."""
    found = []
    text = re.sub(r"<< *'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)  # what a here-document holds
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        assert "&&" not in words, f"one command a line, please: {line}"
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        for stop in ("|", ">", ">>"):
            words = words[: words.index(stop)] if stop in words else words
        if words:
            found.append(words)
    return found


ALL_BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


# ---- does a command line fit the program? -------------------------------------------------------------------------


def command_tree(program: str) -> Any:
    """The program's command tree; typer's own classes, so only what they share with click is used."""
    typer_main = importlib.import_module("typer.main")
    return typer_main.get_command(importlib.import_module(OUR_PROGRAMS[program]).app)


def choices_of(parameter: Any) -> set[str]:
    """The values that a parameter takes, if it is a choice: typer keeps the annotation, older versions click's type."""
    kind = getattr(parameter, "type", None)
    if getattr(kind, "choices", None):
        return {str(getattr(choice, "value", choice)) for choice in kind.choices}
    pending, found = [getattr(getattr(parameter, "type_descriptor", None), "annotation", None)], set()
    while pending:
        annotation = pending.pop()
        if typing.get_origin(annotation) is Literal:
            found |= {str(value) for value in typing.get_args(annotation)}
        elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            found |= {str(member.value) for member in annotation}
        else:
            pending += typing.get_args(annotation)
    return found


def misfit(program: str, arguments: list[str]) -> str | None:
    """Why `program arguments` would be refused before it did anything, or None if it would not.

    Options, the values of choices, and the number of arguments are checked; whether files exist is not.
    """
    command, name, rest = command_tree(program), program, arguments
    while hasattr(command, "commands"):
        if rest and rest[0] == "--help":
            return None
        if not rest or rest[0] not in command.commands:
            return f"{name} has no command {rest[0] if rest else '(none given)'!r}; it has {sorted(command.commands)}"
        command, name, rest = command.commands[rest[0]], f"{name} {rest[0]}", rest[1:]
    if "--help" in rest:
        return None
    context = command.context_class(command, info_name=name)
    try:
        values, left_over, _ = command.make_parser(context).parse_args(list(rest))
    except Exception as error:  # the parser's own usage errors; their class differs between typer versions
        return f"{name}: {getattr(error, 'message', error)}"
    if left_over:
        return f"{name}: arguments too many: {left_over}"
    for parameter in command.params:
        value = values.get(parameter.name)
        given = value is not None and type(value).__name__ != "Sentinel" and value != ()
        if parameter.required and not given:
            return f"{name}: {parameter.name} is missing"
        choices = choices_of(parameter)
        for one in (value if isinstance(value, list | tuple) else [value]) if choices and given else []:
            if str(one) not in choices:
                return f"{name}: {one!r} is none of {sorted(choices)}"
    return None


def make_misfit(arguments: list[str]) -> str | None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    run = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stderr.strip() if run.returncode else None


def pip_misfit(arguments: list[str]) -> str | None:
    extras = set(read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"])
    asked = {extra for word in arguments for group in re.findall(r"\[([\w,\-]+)\]", word) for extra in group.split(",")}
    return f"no such extras: {sorted(asked - extras)}" if asked - extras else None


def why_wrong(words: list[str]) -> str | None:
    """Why a documented command is wrong, or None."""
    program, arguments = words[0], words[1:]
    if program in OUR_PROGRAMS:
        return misfit(program, arguments)
    if program == "make":
        return make_misfit(arguments)
    if program == "pip":
        return pip_misfit(arguments)
    return None if program in OTHER_PROGRAMS else f"unknown program {program!r}"


# ---- the tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b for b in ALL_BLOCKS if b.language in ("sh", "bash", "console")], ids=str)
def test_commands_fit_their_programs(block: Block) -> None:
    wrong = {" ".join(words): reason for words in commands(block.text) if (reason := why_wrong(words))}
    assert not wrong


@pytest.mark.parametrize("block", [b for b in ALL_BLOCKS if b.language not in ("sh", "bash", "console")], ids=str)
def test_other_blocks_parse(block: Block) -> None:
    if block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    else:
        assert block.language in ("", "text", "bibtex", "csv", "make", "jsonl"), f"unknown language {block.language!r}"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to the repository's files: commands find everything, and what they write stays here."""
    folder = tmp_path_factory.mktemp("readme")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "dist", "build"):
            (folder / path.name).symlink_to(path)
    return folder


def runnable() -> list[Any]:
    """The blocks to execute; `sh run model` needs the model stack."""
    chosen = [block for block in ALL_BLOCKS if "run" in block.marks]
    return [pytest.param(b, id=str(b), marks=[pytest.mark.model] if "model" in b.marks else []) for b in chosen]


@pytest.mark.slow
@pytest.mark.parametrize("block", runnable())
def test_runnable_blocks_run(block: Block, workplace: Path) -> None:
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shell = ["bash", "-eu", "-o", "pipefail", "-c"] if block.language != "python" else [sys.executable, "-c"]
    run = subprocess.run(
        [*shell, block.text], cwd=workplace, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, f"{run.stdout[-3000:]}\n{run.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.model
def test_demo_runs(tmp_path: Path) -> None:
    """`make demo` on few recordings, where its checkpoint is and the running environment was made by `make setup`."""
    place = [f"VENV={sys.prefix}", f"DEMO={tmp_path / 'demo'}", "DEMO_RECORDINGS=100"]
    if not (ROOT / "reports" / "reference" / "checkpoint").is_dir():
        pytest.skip("no reference checkpoint yet: make reference")
    if subprocess.run(["make", "-q", "setup", *place], cwd=ROOT, check=False).returncode:
        pytest.skip("this environment was not made by `make setup`, or is out of date")
    run = subprocess.run(["make", "demo", *place], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, f"{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    assert (tmp_path / "demo" / "run" / "run.json").exists()


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives a Markdown file's headings."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(document: str) -> str:
    return re.sub(
        r"^\s*```.*?^\s*```\s*$", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_named_paths_exist(document: str) -> None:
    """`heartllm/ecg/leads.py` in backquotes is a promise that the file is there."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    named = {
        word for word in re.findall(r"`([\w.\-/]+)`", prose(document)) if word.split("/")[0] in tops and "/" in word
    }
    assert not sorted(word for word in named if not (ROOT / word).exists())


def test_readme_shows_the_two_commands() -> None:
    shown = {
        " ".join(words) for block in blocks("README.md") for words in commands(block.text) if block.language == "sh"
    }
    assert {"make demo", "make test"} <= shown


# ---- the checks see what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "heartllm no-such-command",
        "heartllm-eval run --no-such-option 3",
        "make no-such-target",
        "pip install 'heartllm[no-such-extra]'",
        "no-such-program --help",
    ],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    (words,) = commands(line)
    assert why_wrong(words)


class Colour(str, enum.Enum):  # module level, so that typer can resolve the annotation
    RED = "red"


@pytest.fixture
def small_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called `small` with the commands `paint FILE --colour red [--coats N]` and `wash`."""
    app = typer.Typer()

    @app.command()
    def paint(
        file: Path, colour: Annotated[Colour, typer.Option()], coats: Annotated[int, typer.Option("-n", "--coats")] = 1
    ) -> None: ...

    @app.command()
    def wash() -> None: ...

    monkeypatch.setitem(OUR_PROGRAMS, "small", "small")
    monkeypatch.setitem(sys.modules, "small", types.SimpleNamespace(app=app))


@pytest.mark.usefixtures("small_program")
@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("small paint a.csv --colour red", True),
        ("small paint a.csv --colour red -n 2", True),
        ("small paint --help", True),
        ("small paint --colour red", False),
        ("small paint a.csv", False),
        ("small paint a.csv b.csv --colour red", False),
        ("small paint a.csv --colour green", False),
        ("small paint a.csv --colour red --layers 2", False),
        ("small paint a.csv --colour red --coats", False),
        ("small dry", False),
        ("small", False),
        ("small wash", True),
    ],
)
def test_command_lines_are_held_against_the_program(line: str, fits: bool) -> None:
    (words,) = commands(line)
    assert (why_wrong(words) is None) == fits, why_wrong(words)


def test_commands_are_split_as_a_shell_would() -> None:
    text = "$ heartllm a \\\n  --b 'c d'  # why\n# only a comment\nX=1 make demo\n"
    assert commands(text) == [["heartllm", "a", "--b", "c d"], ["make", "demo"]]
