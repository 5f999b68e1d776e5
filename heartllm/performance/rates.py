"""What the stages reach on a device, as a share of what it can do, and whether its answers are the CPU's.

    python -m heartllm.performance.rates --device cuda --recipe tiny --out rates.json

Stages: encode (waveforms to codes, fp32), forecasting and tuning (a whole optimiser step), evaluation (greedy answers
to all questions of some ECGs). Utilisation is operations counted from the model's shape over seconds and over the
matrix rate measured in the same run. Codes and answers of a checkpoint are compared with the CPU's in fp32; what
differs in bf16 is counted. ECGs are drawn, and codes where only the amount of work counts.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from heartllm.checkpoint import CheckpointConfig, load_codec, load_language, new_language
from heartllm.codec.codec import CodecConfig
from heartllm.data.synthetic.simulation import simulate
from heartllm.data.templates import all_asked
from heartllm.errors import UsageError, run_command_line
from heartllm.frontends.fsq import FSQCodes
from heartllm.language.generation import Generator, ResponderItem
from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Batch, collate, pack
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids
from heartllm.language.vocabulary import Vocabulary, load_text_tokenizer, train_text_tokenizer
from heartllm.performance.arithmetic import CODES, Shape, encode_plain, forward, training
from heartllm.performance.limits import best, machine_limits, synchronised
from heartllm.recipe import load_recipe
from heartllm.training.loop import LoopConfig, _groups
from heartllm.training.objective import Weights, language_losses

FEATURES = "Age: 54 years. Sex: female. Height: 165 cm. Weight: 59 kg. Device: CS-12."
ANSWERS = ("yes", "no", "sinus bradycardia", "left ventricular hypertrophy")
QUESTIONS = 14  # of an ECG; ECG-QA asks 13.8 of each test ECG
TOKENS = 32  # an answer at most


@dataclass(frozen=True)
class Stage:
    """One stage's rate.

    Attributes:
        unit: what is counted: recordings, answers.
        rate: units a second. seconds: of one run.
        operations: of one run, counted from shapes.
        limit: which matrix rate the utilisation is a share of.
    """

    name: str
    unit: str
    rate: float
    seconds: float
    operations: float
    limit: str
    utilisation: float
    settings: str


def questions(count: int) -> list[str]:
    """So many questions in ECG-QA's words."""
    asked = [each.text for each in all_asked()]
    return [asked[int(i) % len(asked)] for i in np.random.default_rng(0).permutation(len(asked))[:count]]


def tiny_model(recipe: str, *, seed: int = 0) -> ECGLanguageModel:
    """The language model of a recipe, untrained; a text tokenizer is trained on a few questions where it is tiny.

    Raises:
        UsageError: if there is no such recipe, or its backbone cannot be loaded.
    """
    settings = load_recipe(recipe)
    tiny = settings.language.backbone == "tiny"
    corpus = [FEATURES, *ANSWERS, *questions(200)]
    tokenizer = (
        train_text_tokenizer(corpus * 3, settings.language.tiny.vocabulary)
        if tiny
        else load_text_tokenizer(Path(settings.language.backbone))
    )
    rows = len(tokenizer)
    config = CheckpointConfig(CodecConfig(), settings.language, rows)
    return new_language(config, tokenizer, seed)


def shape_of(model: ECGLanguageModel) -> Shape:
    """The shape of a model's backbone, with the rows of its whole vocabulary."""
    config = model.backbone.config
    heads = int(config.num_attention_heads)
    return Shape(
        hidden=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        heads=heads,
        key_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        feedforward=int(config.intermediate_size),
        vocabulary=model.vocabulary.size,
        tied=model.tied,
    )


def drawn_codes(count: int, codes: int, length: int = CODES) -> list[npt.NDArray[np.int64]]:
    """Codes (length,) of so many recordings that never were."""
    return list(np.random.default_rng(0).integers(0, codes, (count, length)))


def forecasting_batch(vocabulary: Vocabulary, recordings: int, length: int = CODES) -> Batch:
    """Recordings as the forecasting stage reads them, of so many codes each."""
    packed = []
    for codes in drawn_codes(recordings, vocabulary.codes, length):
        prefix, span = prefix_ids(vocabulary, FEATURES, codes)
        packed.append(pack(prefix, [], span))
    return collate(packed, vocabulary.pad)


def tuning_batch(vocabulary: Vocabulary, recordings: int, asked: int = QUESTIONS) -> Batch:
    """Recordings as the tuning stage reads them, each with so many questions packed behind it."""
    packed = []
    for codes in drawn_codes(recordings, vocabulary.codes):
        prefix, span = prefix_ids(vocabulary, FEATURES, codes)
        pairs = [
            (prompt_ids(vocabulary, text), answer_ids(vocabulary, ANSWERS[i % len(ANSWERS)]))
            for i, text in enumerate(questions(asked))
        ]
        packed.append(pack(prefix, pairs, span))
    return collate(packed, vocabulary.pad)


def training_operations(model: ECGLanguageModel, batch: Batch, weights: Weights) -> float:
    """Operations of forward and backward over a batch, its padding included."""
    rows, length = batch.ids.shape
    outputs = sum(
        int((labels != IGNORED).sum())
        for labels, weight in ((batch.labels, weights.answer), (batch.forecast, weights.forecast))
        if weight
    )
    pairs = rows * (length * length if batch.mask is not None else length * (length + 1) / 2)
    return training(shape_of(model), rows * length, pairs, outputs, adapters=model.config.train != "all")


class Stepper:
    """Optimiser steps on one batch, as `heartllm.training.loop` makes them; without reading supervision."""

    def __init__(self, model: ECGLanguageModel, batch: Batch, weights: Weights, device: str, precision: str) -> None:
        self.model, self.weights, self.device = model.to(device).train(), weights, device
        self.batch, self.half = batch.to(torch.device(device)), precision == "bf16"
        self.findings = torch.zeros(len(batch.ids), 0, dtype=torch.int8, device=device)
        self.optimiser = torch.optim.AdamW(_groups(model, LoopConfig(1).weight_decay), lr=1e-4)

    def __call__(self) -> torch.Tensor:
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.half):
            loss = language_losses(self.model, None, self.batch, self.findings, self.weights)["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.detach()


@torch.no_grad()
def drawn_ecgs(count: int, seed: int = 5) -> torch.Tensor:
    """(count, 12, 5000) mV of drawn hearts."""
    return torch.from_numpy(np.stack([simulate(seed, index)[0].signal for index in range(count)]))


def items(codes: Sequence[npt.NDArray[np.int64]], asked: int = QUESTIONS) -> list[ResponderItem]:
    """All questions of some ECGs."""
    return [ResponderItem(str(n), ecg, text, FEATURES) for n, ecg in enumerate(codes) for text in questions(asked)]


def evaluation_operations(model: ECGLanguageModel, asked: Sequence[ResponderItem], said: Sequence[str]) -> float:
    """Operations of reading each prefix once, and of prompts and answers behind it."""
    shape, vocabulary, total = shape_of(model), model.vocabulary, 0.0
    seen = set[str]()
    for item, answer in zip(asked, said, strict=True):
        prefix = len(prefix_ids(vocabulary, item.features, item.codes)[0])
        if item.recording_key not in seen:
            seen.add(item.recording_key)
            total += forward(shape, prefix, prefix**2, 0)
        prompt, spoken = len(prompt_ids(vocabulary, item.question)), len(vocabulary.text(answer)) + 1
        total += forward(shape, prompt + spoken - 1, (prompt + spoken) * (prefix + prompt + spoken), spoken)
    return total


def measure(
    device: str, recipe: str, *, seconds: float, batch: int | None, ecgs: int, precision: str, checkpoint: Path
) -> tuple[list[Stage], dict[str, float]]:
    """The stages' rates on `device`, and its limits."""
    clock, limits = synchronised(device), machine_limits(device, seconds=min(1.0, seconds))
    settings, found = load_recipe(recipe), list[Stage]()

    def add(name: str, unit: str, units: int, run: Callable[[], object], work: float, limit: str, how: str) -> None:
        took = best(run, clock, seconds)
        found.append(Stage(name, unit, units / took, took, work, limit, work / took / limits[limit], how))

    codec = FSQCodes(settings.tokenizer.codec).eval().to(device)
    signal = drawn_ecgs(min(ecgs, 16)).repeat(-(-ecgs // 16), 1, 1)[:ecgs].to(device)
    if settings.tokenizer.codec.network == "plain":
        work = ecgs * encode_plain(latent=len(settings.tokenizer.codec.levels))
        add("encode", "recordings", ecgs, lambda: codec.encode(signal), work, "fp32", f"batch {ecgs}, fp32")
    for name, stage in (("forecasting", settings.forecasting), ("tuning", settings.tuning)):
        model, rows = tiny_model(recipe), batch or stage.batch
        weights = Weights(0.0, 1.0) if name == "forecasting" else Weights(1.0)
        make = forecasting_batch if name == "forecasting" else tuning_batch
        made = make(model.vocabulary, rows)
        step = Stepper(model, made, weights, device, precision)
        how = f"batch {rows}, {made.ids.shape[1]} positions, {precision} products"
        add(name, "recordings", rows, step, training_operations(model, made, weights), precision, how)
    model = tiny_model(recipe).to(device)
    generator = Generator(model.to(torch.bfloat16) if precision == "bf16" and device != "cpu" else model)
    asked = items(drawn_codes(ecgs, model.vocabulary.codes))

    def answer() -> list[str]:
        return list(generator.answer(asked, max_new_tokens=TOKENS, batch_size=16 * QUESTIONS))

    kind = "bf16" if generator.table.dtype == torch.bfloat16 else "fp32"
    work = evaluation_operations(model, asked, answer())
    add("evaluation", "answers", len(asked), answer, work, kind, f"{ecgs} ECGs, {TOKENS} tokens at most, {kind}")
    return found, limits


def compare(device: str, checkpoint: Path, ecgs: int) -> dict[str, int]:
    """Codes and answers of a checkpoint on `device` that are not the CPU's.

    Returns:
        Counts: codes and answers in all; of fp32 codes, fp32 answers and bf16 answers, how many differ.
    """
    signal = drawn_ecgs(ecgs)
    codec, _ = load_codec(checkpoint)
    wanted = codec.encode(signal)
    codes = codec.to(device).encode(signal.to(device)).cpu()
    asked = items(list(wanted.numpy()))

    def said(where: str, dtype: torch.dtype) -> list[str]:
        model, _ = load_language(checkpoint)
        return list(Generator(model.to(where, dtype)).answer(asked, max_new_tokens=TOKENS, batch_size=8 * QUESTIONS))

    reference = said("cpu", torch.float32)
    differ = {
        f"{name} answers that differ": sum(a != b for a, b in zip(reference, said(device, kind), strict=True))
        for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    return {"codes": wanted.numel(), "answers": len(asked), "codes that differ": int((codes != wanted).sum()), **differ}


def device_facts(device: str) -> dict[str, Any]:
    """What was measured on, without names of hosts."""
    facts: dict[str, Any] = {"device": device, "torch": torch.__version__, "python": platform.python_version()}
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["memory_gb"] = round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
    else:
        facts["threads"] = torch.get_num_threads()
    return facts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m heartllm.performance.rates", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recipe", default="tiny", help="a bundled recipe, or a TOML file")
    parser.add_argument("--checkpoint", type=Path, default=Path("reports/reference/checkpoint"))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--seconds", type=float, default=5.0, help="spent on each rate")
    parser.add_argument("--batch", type=int, help="recordings of a training step; the recipe's if not given")
    parser.add_argument("--ecgs", type=int, default=64, help="recordings that are encoded and asked about")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args(arguments)
    try:
        torch.empty(1, device=given.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"{given.device!r} cannot be used here ({str(error).splitlines()[0]})",
            where="--device",
            remedy="Write cpu.",
        ) from None
    if given.ecgs < 1 or (given.batch is not None and given.batch < 1) or given.seconds <= 0:
        raise UsageError("a number is not positive", where="--ecgs, --batch, --seconds", remedy="Give more than 0.")
    stages, limits = measure(
        given.device,
        given.recipe,
        seconds=given.seconds,
        batch=given.batch,
        ecgs=given.ecgs,
        precision=given.precision,
        checkpoint=given.checkpoint,
    )
    differ = compare(given.device, given.checkpoint, min(given.ecgs, 16))
    result = {
        "machine": device_facts(given.device),
        "recipe": given.recipe,
        "limits": limits,
        "stages": [vars(stage) for stage in stages],
        "compared with the CPU": differ,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command_line(main)
