"""MIMIC-IV-ECG from end to end on paper: operations, bytes and hours a stage, and what bounds it.

    python -m heartllm.performance.capacity            the page on standard output
    python -m heartllm.performance.capacity --check docs/capacity.md

Plain arithmetic from `capacity.toml` beside this file, or from `--inputs FILE`. Each stage is bounded by the slowest of
what it needs (a pipeline that overlaps them is assumed); the page names it and marks every rate as measured or assumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartllm.config import from_dict, read_toml
from heartllm.errors import DataError, UsageError, run_command_line
from heartllm.performance.arithmetic import CODES, RECORD_BYTES, Shape, encode_plain, forward, training

INPUTS = Path(__file__).with_name("capacity.toml")
ECG_ROWS = 1298
MODELS = {
    "3B (Llama-3.2-3B)": Shape(3072, 28, 24, 8, 128, 8192, 128_256 + ECG_ROWS),
    "8B (Llama-3.1-8B)": Shape(4096, 32, 32, 8, 128, 14_336, 128_256 + ECG_ROWS, tied=False),
}


@dataclass(frozen=True)
class Rate:
    """A rate or share, and where it comes from."""

    value: float
    unit: str
    kind: Literal["measured", "assumed"]
    source: str

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise ValueError(f"a rate of {self.value} is not positive")
        if not self.source.strip():
            raise ValueError("a rate without a source")


@dataclass(frozen=True)
class Rates:
    """All rates, see `capacity.toml`."""

    read: Rate
    disk: Rate
    fp32: Rate
    fp32_share: Rate
    bf16: Rate
    bf16_share: Rate
    memory: Rate
    memory_share: Rate
    scaling: Rate
    batch: Rate


@dataclass(frozen=True)
class Inputs:
    """How much there is to do, and how fast things are."""

    recordings: int
    questions: int
    evaluated_share: float
    views: int
    epochs: int
    prefix: int
    question_tokens: int
    answer_tokens: int
    gpus: tuple[int, ...]
    cores_per_gpu: int
    rates: Rates

    @property
    def pair(self) -> int:
        """Tokens of a question with its answer."""
        return self.question_tokens + self.answer_tokens


@dataclass(frozen=True)
class Stage:
    """One stage on some GPUs: what it needs, and seconds by what bounds it."""

    name: str
    operations: float
    moved: float
    seconds: dict[str, float]

    @property
    def bottleneck(self) -> str:
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def hours(self) -> float:
        return max(self.seconds.values()) / 3600


def stages(given: Inputs, shape: Shape, gpus: int) -> list[Stage]:
    """The four stages. LoRA trains, so that backward costs as much as forward; questions share their ECG's prefix."""
    rates, each = given.rates, given.questions / given.recordings
    together = gpus if gpus == 1 else gpus * rates.scaling.value
    fast = together * rates.bf16.value * rates.bf16_share.value

    work = given.recordings * (1 + (given.views - 1) * (1 - given.evaluated_share)) * encode_plain()
    raw = float(given.recordings * RECORD_BYTES)
    tokenise = Stage(
        "tokenise",
        work,
        raw,
        {
            "file system": raw / rates.disk.value,
            "reading on the CPU": given.recordings / (rates.read.value * given.cores_per_gpu * gpus),
            "fp32 arithmetic": work / (gpus * rates.fp32.value * rates.fp32_share.value),
        },
    )
    trained = given.recordings * (1 - given.evaluated_share) * given.epochs
    one = training(shape, given.prefix, given.prefix**2, CODES, adapters=True)
    tokens = trained * 2.0 * CODES
    forecast = Stage("forecast", trained * one, tokens, {"bf16 arithmetic": trained * one / fast})
    length = given.prefix + each * given.pair
    one = training(shape, length, length**2, each * given.answer_tokens, adapters=True)
    tune = Stage("tune", trained * one, tokens, {"bf16 arithmetic": trained * one / fast})

    shown, asked = given.recordings * given.evaluated_share, given.questions * given.evaluated_share
    read = shown * forward(shape, given.prefix, given.prefix**2, 0)
    read += asked * forward(shape, given.question_tokens, given.question_tokens * length, 1)
    said = asked * given.answer_tokens
    work = said * forward(shape, 1, length, 1)
    moved = said * (2.0 * shape.weights / rates.batch.value + shape.cache_bytes * length)
    evaluate = Stage(
        "evaluate",
        read + work,
        moved,
        {
            "bf16 arithmetic (prompts)": read / (gpus * rates.bf16.value * rates.bf16_share.value),
            "GPU memory (answers)": moved / (gpus * rates.memory.value * rates.memory_share.value),
        },
    )
    return [tokenise, forecast, tune, evaluate]


def load_inputs(path: Path = INPUTS) -> Inputs:
    """Reads the inputs.

    Raises:
        UsageError: naming the key that is missing, unknown or wrong.
    """
    given = from_dict(Inputs, read_toml(path), where=path)
    counts = (given.recordings, given.questions, given.views, given.epochs, given.cores_per_gpu, *given.gpus)
    if min(counts) < 1 or not given.gpus or not 0 < given.evaluated_share < 1:
        raise UsageError("a count or share is out of range", where=path, remedy="Give 1 or more; a share below 1.")
    return given


def page(given: Inputs) -> str:
    """The page as Markdown."""
    lines = [
        "# Capacity",
        "",
        "MIMIC-IV-ECG from end to end, **on paper**: made by `python -m heartllm.performance.capacity`, and not run.",
        f"{given.recordings:,} recordings and {given.questions:,} questions, {100 * given.evaluated_share:g} % of them",
        f"kept for the test; {given.views} tokenisations of a training recording; {given.epochs} pass of forecasting",
        "and of tuning, with LoRA.",
        "Hours are those of what bounds a stage; the rest is taken to overlap with it.",
        "",
    ]
    for name, shape in MODELS.items():
        memory = 2 * shape.weights / 1e9
        cache = shape.cache_bytes * given.prefix / 1e6
        lines += [
            f"## {name}",
            "",
            f"{shape.weights / 1e9:.2f} billion numbers, {memory:.1f} GB in bf16; an ECG caches {cache:.0f} MB.",
            "",
            "| GPUs | stage | operations | bytes moved | hours | bound by |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for gpus in given.gpus:
            found = stages(given, shape, gpus)
            lines += [
                f"| {gpus} | {one.name} | {one.operations:.2e} | {one.moved:.2e} | {one.hours:.3g} | {one.bottleneck} |"
                for one in found
            ]
            lines.append(f"| {gpus} | all | | | {sum(one.hours for one in found):.3g} | |")
        lines.append("")
    lines += ["## Rates", "", "| rate | value | | where from |", "| --- | --- | --- | --- |"]
    for name in Rates.__dataclass_fields__:
        rate: Rate = getattr(given.rates, name)
        lines.append(f"| {name} | {rate.value:.3g} {rate.unit} | **{rate.kind}** | {rate.source} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m heartllm.performance.capacity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--inputs", type=Path, default=INPUTS, help="TOML like capacity.toml")
    parser.add_argument("--check", type=Path, help="fail where this page is not what the inputs give")
    given = parser.parse_args(arguments)
    text = page(load_inputs(given.inputs))
    if given.check is None:
        print(text, end="")
    elif not given.check.is_file() or given.check.read_text(encoding="utf-8") != text:
        again = f"Write it again: python -m heartllm.performance.capacity > {given.check}"
        raise DataError("is not what the inputs give", where=given.check, remedy=again)


if __name__ == "__main__":
    run_command_line(main)
