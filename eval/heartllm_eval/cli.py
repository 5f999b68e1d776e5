"""`heartllm-eval`: evaluate ECG language models, or score what they said."""

from __future__ import annotations

import importlib

import typer

from heartllm.errors import run_command_line
from heartllm.version import Version

# Modules of `heartllm_eval.commands`, in the order of --help; each has a `register(app)`.
COMMANDS = (
    "run",
    "score",
    "compare",
    "view",
    "tables",
    "freeze",
    "export",
    "paper",
    "report",
    "measure",
    "look",
    "lexicon",
    "validate",
)

# "--model-args" and "--model_args" are the same option.
CONTEXT = {"token_normalize_func": lambda token: token.replace("-", "_"), "help_option_names": ["--help", "-h"]}

app = typer.Typer(
    context_settings=CONTEXT,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Evaluates ECG language models: questions, reports, controls, intervals.

**Score a file of answers** (no torch needed): `heartllm-eval score answers.jsonl --references references.jsonl`

**Evaluate a checkpoint with its controls:** `heartllm-eval run -M heartllm -a checkpoint=DIR -t ptbxl_qa -o runs/mine`

**See what can be asked:** `heartllm-eval ls`

Options may be written with underscores or dashes.""",
)


@app.callback()
def program(version: Version = False) -> None:
    """Nothing of its own: `--version` ends before it."""


for name in COMMANDS:
    importlib.import_module(f"heartllm_eval.commands.{name}").register(app)


def main() -> None:
    """The console script."""
    run_command_line(app)
