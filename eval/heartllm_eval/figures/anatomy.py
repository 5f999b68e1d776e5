"""What figure 2 shows of a checkpoint: every shape and count is read from the loaded model, none is typed.

The ECG at its left is a synthetic one (`heartllm.data.synthetic`), and the codes are what this checkpoint makes of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import CheckpointError, DataError
from heartllm.writing import write_whole

if TYPE_CHECKING:
    from heartllm.responder import Responder

SCHEMA = 1
LEADS = ("I", "II", "V1", "V5")
SECONDS = 2.5  # of the traces at the left
STEP = 4  # samples between the points of a trace
SHOWN = 20  # codes
QUESTION = "What form-related symptoms does this ECG show?"
FEATURES = "Age: 63 years. Sex: female."


@dataclass(frozen=True)
class Stage:
    """A stage of training: its steps, and the last line of its log."""

    name: str
    steps: int
    last: dict[str, float]


@dataclass(frozen=True)
class Anatomy:
    """A checkpoint in numbers.

    Attributes:
        system: its name.
        checkpoint: its hash.
        leads, samples, rate: what the encoder reads, at `rate` Hz.
        frontend: kind of front-end; `network` and `lead_weights` of a codec, else "".
        frontend_parameters: of what stays in use after its training; `decoder_parameters` of what does not.
        positions: places that 10 s take in the prompt. latent: numbers a place before quantisation (or as stored).
        levels: of FSQ; empty without. codes: size of the ECG vocabulary; None for soft tokens.
        bits: bits a second that reach the language model.
        text_rows, special_rows, code_rows: rows of the embedding table. rows: how code rows are made.
        backbone: as the recipe names it; `family` as its config does.
        layers, hidden, heads: of the language model.
        language_parameters: all of them; trained_parameters: those that training changes.
        train: "all", "lora", ...; lora_rank: 0 without LoRA.
        layout: order of the prompt; `parts` its parts and their tokens for one example question.
        stages: in order.
        traces: lead -> mV every `STEP` samples over `SECONDS`. example: the first codes of that ECG.
    """

    system: str
    checkpoint: str
    leads: int
    samples: int
    rate: float
    frontend: str
    network: str
    lead_weights: str
    frontend_parameters: int
    decoder_parameters: int
    positions: int
    latent: int
    levels: tuple[int, ...]
    codes: int | None
    bits: float
    text_rows: int
    special_rows: int
    code_rows: int
    rows: str
    backbone: str
    family: str
    layers: int
    hidden: int
    heads: int
    language_parameters: int
    trained_parameters: int
    train: str
    lora_rank: int
    layout: str
    parts: tuple[tuple[str, int], ...]
    stages: tuple[Stage, ...] = ()
    traces: dict[str, list[float]] = field(default_factory=dict)
    example: tuple[int, ...] = ()


def read_anatomy(responder: Responder, folder: Path, system: str = "HeartLLM", seed: int = 0) -> Anatomy:
    """Reads a loaded checkpoint, the logs in its folder, and what it makes of synthetic ECG number `seed`."""
    import numpy as np
    import torch

    from heartllm.data.synthetic import simulate
    from heartllm.ecg.recording import LEADS as ALL

    recording, _ = simulate(seed, 0)
    front, model, config = responder.front, responder.generator.model, responder.config
    read = responder.encode(recording)
    encoder, decoder = getattr(front, "encoder", None), getattr(front, "decoder", None)
    latent = front.width or 0
    if encoder is not None and front.codes is not None:
        with torch.inference_mode():
            latent = int(encoder(torch.zeros(1, *recording.signal.shape)).shape[-1])
    settings = getattr(front, "config", None)
    body, vocabulary = model.backbone.config, model.vocabulary
    thrown_away = _count(decoder)
    codes = None if front.codes is None else [int(code) for code in read if code >= 0]
    return Anatomy(
        system=system,
        checkpoint=responder.fingerprint,
        leads=recording.signal.shape[0],
        samples=recording.signal.shape[1],
        rate=recording.sampling_rate,
        frontend=str(front.kind),
        network=str(getattr(settings, "network", "")),
        lead_weights=str(getattr(settings, "lead_weights", "")),
        frontend_parameters=_count(front) - thrown_away,
        decoder_parameters=thrown_away,
        positions=len(read) if codes is None else len(codes),
        latent=latent,
        levels=tuple(front.levels),
        codes=front.codes,
        bits=float(front.bits),
        text_rows=vocabulary.base,
        special_rows=vocabulary.first_code - vocabulary.base,
        code_rows=front.codes or 0,
        rows=config.language.rows if front.codes is not None and front.levels else "",
        backbone=config.language.backbone,
        family=str(body.model_type),
        layers=int(body.num_hidden_layers),
        hidden=int(body.hidden_size),
        heads=int(body.num_attention_heads),
        language_parameters=_count(model),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        train=config.language.train,
        lora_rank=config.language.lora.rank if config.language.train != "all" else 0,
        layout=config.layout,
        parts=_parts(responder, read),
        stages=read_stages(folder),
        traces={
            lead: [
                round(float(v), 3)
                for v in recording.signal[ALL.index(lead)][: int(SECONDS * recording.sampling_rate) : STEP]
            ]
            for lead in LEADS
        },
        example=tuple((codes or list(np.zeros(0, int)))[:SHOWN]),
    )


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def _parts(responder: Responder, read: Any) -> tuple[tuple[str, int], ...]:
    """The parts of a prompt in order, and how many tokens each takes."""
    from heartllm.language.prompts import prefix_ids, prompt_ids

    vocabulary, layout = responder.generator.vocabulary, responder.config.layout
    features = FEATURES if responder.config.features else ""
    ids, (first, last) = prefix_ids(vocabulary, features, read, QUESTION if layout == "question-first" else None)
    behind = len(prompt_ids(vocabulary, QUESTION, layout))
    told = len(vocabulary.text(features + "\n")) if features else 0
    asked = first - 1 - told - len(vocabulary.bos)
    parts = [("start", len(vocabulary.bos)), ("features", told), ("question", asked), ("ECG", last - first)]
    parts.append(("question" if layout == "ecg-first" else "answer mark", behind))
    assert sum(count for _, count in parts) - behind + 2 == len(ids)  # the ECG stands between two marks
    return tuple((name, count) for name, count in parts if count)


def read_stages(folder: Path) -> tuple[Stage, ...]:
    """The stages that left a log in a checkpoint's folder.

    Raises:
        CheckpointError: for a log that cannot be read.
    """
    stages = []
    for name in ("tokenizer", "forecasting", "tuning"):
        path = folder / "training" / f"{name}.jsonl"
        if not path.is_file():
            continue
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            last = {key: float(value) for key, value in lines[-1].items() if isinstance(value, (int, float))}
            stages.append(Stage(name, int(lines[-1]["step"]), last))
        except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise CheckpointError(
                f"is no training log ({error})", where=path, remedy="Fetch the checkpoint again."
            ) from None
    return tuple(stages)


def write_anatomy(anatomy: Anatomy, path: Path) -> Path:
    """Writes it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in asdict(anatomy).items()]
    write_whole(path, f'{{\n "schema": {SCHEMA},\n' + ",\n".join(lines) + "\n}\n")
    return path


def load_anatomy(path: Path) -> Anatomy:
    """Reads what `write_anatomy` wrote.

    Raises:
        DataError: where it is not that.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("another version")
        data["stages"] = tuple(Stage(**stage) for stage in data["stages"])
        data["parts"] = tuple((str(name), int(count)) for name, count in data["parts"])
        return Anatomy(**{**data, "levels": tuple(data["levels"]), "example": tuple(data["example"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"is not a framework's file ({error})", where=path, remedy="Run heartllm-eval measure framework again."
        ) from None
