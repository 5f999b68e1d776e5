"""A checkpoint is a folder that explains itself and can be checked:

    checkpoint.toml        schema, language configuration, what it was trained on
    codec.toml             the front-end `fsq`, the codec: configuration and weights
    codec.safetensors
    frontend.toml          any other front-end: kind, configuration and weights, in place of the two above
    frontend.safetensors
    language.safetensors   the parameters that trained (all of a tiny model; new rows and LoRA on a pretrained backbone;
                           the module that makes soft tokens of a continuous front-end's values)
    text/                  the text tokenizer
    training/*.jsonl       logs
    training/answers.json  the answers that it was tuned on, and how often
    manifest.json          SHA-256 of every file above

Loading executes nothing: TOML, safetensors and JSON only, and paths stay inside the folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.config import dumps, load, read_toml, to_dict
from heartllm.errors import CheckpointError, UsageError, told_of
from heartllm.frontends import build, frontend_class
from heartllm.frontends.base import FrontEnd
from heartllm.frontends.fsq import FSQCodes
from heartllm.frontends.held import AGAIN, TOO_LARGE, build_held, shapes_of
from heartllm.language.backbones import gguf_path, load_backbone
from heartllm.language.model import ECGLanguageModel, LanguageConfig, build_tiny, choose_trained
from heartllm.language.text_side import TextSide
from heartllm.language.vocabulary import PLACEHOLDERS, Vocabulary, load_text_tokenizer, refuse_ecg_tokens
from heartllm.manifests import verify as verify
from heartllm.manifests import write_manifest as write_manifest
from heartllm.texts import hash_file
from heartllm.untrusted import inside
from heartllm.writing import write_atomically, write_whole

SCHEMA = 1


@dataclass(frozen=True)
class CheckpointConfig:
    """`checkpoint.toml`.

    Attributes:
        codec: the codec's configuration where the front-end is `fsq`.
        frontend: the kind of front-end.
        layout: order of ECG and question in the prompt.
        features: whether the patient features (TAB) stand in the prompt.
        blind: trained without ECGs (a control).
        text_rows: rows of the text part of the vocabulary.
        data: dataset -> hash of what it was trained on.
        stage: last stage that ran.
        backbone_hash: of the GGUF file that the backbone was read from; None for other backbones.
    """

    codec: CodecConfig | None
    language: LanguageConfig
    text_rows: int
    frontend: str = "fsq"
    schema: int = SCHEMA
    layout: Literal["ecg-first", "question-first"] = "ecg-first"
    features: bool = True
    blind: bool = False
    stage: str = "tokenizer"
    data: tuple[str, ...] = field(default_factory=tuple)
    backbone_hash: str | None = None


def hash_backbone(name: str) -> str | None:
    """SHA-256 of the GGUF file that a backbone's name stands for; None where it stands for something else."""
    path = gguf_path(name)
    return None if path is None else hash_file(path)


def save_frontend(front: FrontEnd | Codec, folder: Path) -> None:
    """Writes a front-end's configuration and weights (no manifest; see `write_manifest`).

    The codec keeps the names that it has always had, so that checkpoints of all ages look alike.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(front, Codec):
        stem, text = "codec", dumps(front.config)
    else:
        stem, text = "frontend", dumps({"kind": front.kind, front.kind: to_dict(front.config)})
    write_whole(folder / f"{stem}.toml", text)
    weights = {name: value.contiguous() for name, value in front.state_dict().items()}
    _save_tensors(weights, folder / f"{stem}.safetensors")


def _save_tensors(tensors: Mapping[str, Any], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        write_atomically(path, lambda part: save_file(dict(tensors), part))
    except SafetensorError as error:  # it does not raise what the system says
        raise OSError(None, str(error), str(path)) from None


def load_frontend(folder: Path) -> tuple[FrontEnd, str]:
    """Reads the front-end of a checkpoint (of any stage), frozen, and its hash, which token stores carry.

    Raises:
        CheckpointError: if there is none, or its files do not fit each other.
        UsageError: for settings that its kind does not know.
    """
    path = folder / "codec.toml"
    if path.is_file():
        _stays_inside(folder, path)
        codec, weights = load(CodecConfig, path), path.with_suffix(".safetensors")
        front: FrontEnd = build_held(lambda: FSQCodes(codec), to_dict(codec), weights)
    else:
        path = folder / "frontend.toml"
        if not path.is_file():
            remedy = "Name a folder that `heartllm tokenizer` has finished, or a checkpoint."
            raise CheckpointError("holds no front-end", where=folder, remedy=remedy)
        _stays_inside(folder, path)
        table = read_toml(path)
        kind = str(table.get("kind"))
        settings = table.get(kind, {})
        if set(table) - {"kind", kind} or not isinstance(settings, dict):
            raise CheckpointError("is not a front-end's", where=path, remedy=AGAIN)
        frontend_class(kind, path)
        weights = path.with_suffix(".safetensors")
        front = build_held(lambda: build(kind, settings, path), settings, weights)
    _load_weights(front, weights, set(front.state_dict()))
    digest = hash_file(weights)
    # The codec's hash is that of its weights, as it has always been; others may have settings that weights do not show.
    return front.eval().requires_grad_(False), (
        digest if path.name == "codec.toml" else hashlib.sha256(f"{digest}{hash_file(path)}".encode()).hexdigest()
    )


def _stays_inside(folder: Path, configuration: Path) -> None:
    """Front-ends are read without a manifest, too; neither their configuration nor their weights may be links out."""
    for path in (configuration, configuration.with_suffix(".safetensors")):
        inside(folder, path.name)


def load_codec(folder: Path) -> tuple[FSQCodes, str]:
    """Reads the codec of a checkpoint and its hash.

    Raises:
        CheckpointError: if its front-end is another one.
    """
    front, digest = load_frontend(folder)
    if not isinstance(front, FSQCodes):
        remedy = "Name a folder that holds a codec."
        raise CheckpointError(f"its front-end is {front.kind!r}, not the codec", where=folder, remedy=remedy)
    return front, digest


def _check_size(config: CheckpointConfig, weights: Path) -> None:
    """Refuses a language model that would be larger than what its weights file holds, before it is built.

    Raises:
        CheckpointError: naming both sizes.
    """
    shapes, tiny = shapes_of(weights), config.language.tiny
    stored = sum(map(math.prod, shapes.values()))
    needed = max(0, config.language.lora.rank) * sum("lora" in name for name in shapes)
    if config.language.backbone == "tiny":
        sizes = (config.text_rows, tiny.hidden, tiny.layers, tiny.feedforward, tiny.heads)
        needed += config.text_rows * tiny.hidden + tiny.layers * tiny.hidden * (4 * tiny.hidden + 3 * tiny.feedforward)
        needed = max(needed, *sizes) if min(sizes) > 0 else stored + 1
    if needed > stored:
        raise CheckpointError(f"{TOO_LARGE}: {needed:,} numbers for {stored:,}", where=weights, remedy=AGAIN)


def _load_weights(module: Any, path: Path, needed: set[str]) -> None:
    """Loads a safetensors file into `module`: it must hold all of `needed` and nothing that the module lacks."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=path, remedy=AGAIN) from None
    try:
        missing, unexpected = module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"does not fit its configuration ({line})", where=path, remedy=AGAIN) from None
    if wrong := [*unexpected, *(name for name in missing if name in needed)]:
        name = wrong[0]
        raise CheckpointError(f"does not fit its configuration ({name})", where=path, remedy=AGAIN)


def _kept(model: ECGLanguageModel, config: CheckpointConfig) -> set[str]:
    """Names of the parameters that a checkpoint holds: all of a model from nothing, else what trains."""
    whole = config.language.backbone == "tiny"
    return {name for name, p in model.named_parameters() if whole or p.requires_grad}


def save_language(
    folder: Path, model: ECGLanguageModel, config: CheckpointConfig, logs: Mapping[str, Sequence[Any]]
) -> None:
    """Writes the language part of a checkpoint: configuration, trained parameters, text tokenizer, logs."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = _kept(model, config)
    weights = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items() if name in kept}
    _save_tensors(weights, folder / "language.safetensors")
    model.vocabulary.tokenizer.save_pretrained(folder / "text")
    write_whole(folder / "checkpoint.toml", dumps(config))
    for stage, log in logs.items():
        write_log(folder, stage, log)


def write_log(folder: Path, stage: str, log: Sequence[Any]) -> None:
    """Writes a stage's log, `training/<stage>.jsonl`."""
    (folder / "training").mkdir(exist_ok=True)
    write_whole(folder / "training" / f"{stage}.jsonl", "".join(json.dumps(line) + "\n" for line in log))


def load_language(folder: Path, *, whole: bool = False) -> tuple[ECGLanguageModel, CheckpointConfig]:
    """Reads the language model of a checkpoint in its trainable form.

    Args:
        whole: write a backbone out that is kept in 4 bits, see `load_backbone`.
    """
    if not (folder / "checkpoint.toml").is_file():
        raise CheckpointError(
            "holds no language model", where=folder, remedy="Run `heartllm pretrain` and `heartllm tune` first."
        )
    front, _ = load_frontend(folder)
    config = load_config(folder, front)
    _check_size(config, folder / "language.safetensors")
    with told_of(folder):
        model = new_language(config, load_text_tokenizer(folder / "text"), front=front, whole=whole)
    _load_weights(model, folder / "language.safetensors", _kept(model, config))
    return model.eval(), config


def load_config(folder: Path, front: FrontEnd) -> CheckpointConfig:
    """Reads `checkpoint.toml`.

    Raises:
        CheckpointError: if it is of another front-end than the folder's, `front`.
    """
    config = load(CheckpointConfig, folder / "checkpoint.toml")
    if config.frontend != front.kind or (config.codec is not None and config.codec.levels != front.levels):
        wanted = config.frontend if config.codec is None else f"{config.frontend} with levels {config.codec.levels}"
        raise CheckpointError(
            f"the front-end is {front.kind} with levels {front.levels}, but checkpoint.toml says {wanted}",
            where=folder,
            remedy="Put the front-end back that the language model was trained with.",
        )
    return config


def load_text_side(folder: Path) -> TextSide:
    """The language model of a checkpoint (normally a blind one) as a reader of text; the checkpoint is verified."""
    fingerprint = verify(folder)
    return TextSide(load_language(folder)[0], fingerprint)


def begin_as(model: ECGLanguageModel, folder: Path) -> None:
    """Gives a tiny model the layers and text rows of the checkpoint in `folder`; its ECG rows stay as they are.

    Raises:
        UsageError: if that model has another shape.
    """
    source, config = load_language(folder)
    if (
        config.language.backbone != "tiny"
        or config.language.tiny != model.config.tiny
        or config.language.train != "all"
    ):
        raise UsageError(
            "has a language model of another shape than the recipe's [language.tiny]",
            where=folder,
            remedy="Train the text model with the same recipe: `heartllm tune --blind`.",
        )
    model.backbone.load_state_dict(source.backbone.state_dict())


def new_language(
    config: CheckpointConfig, tokenizer: Any, seed: int = 0, front: FrontEnd | None = None, *, whole: bool = False
) -> ECGLanguageModel:
    """A language model as `config` describes it, before training.

    Args:
        front: the front-end that it is for, which may be left out where it is the codec.
        whole: see `load_backbone`.

    Raises:
        UsageError: if the backbone cannot be used, or its tokenizer holds ECG tokens already.
        CheckpointError: if the GGUF file is not the one that `config` names by its hash, or the tokenizer does not fit.
    """
    front = front or FSQCodes(config.codec or CodecConfig())
    codes = PLACEHOLDERS if front.codes is None else front.codes
    refuse_ecg_tokens(tokenizer, codes)
    vocabulary = Vocabulary(tokenizer, config.text_rows, codes, front.width, front.describe)
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.text_rows:
        raise CheckpointError(
            f"the text tokenizer counts to {highest}, but the checkpoint has {config.text_rows} text rows",
            remedy="Use the tokenizer that belongs to the checkpoint.",
        )
    if config.language.backbone == "tiny":
        backbone = build_tiny(config.language.tiny, vocabulary, seed)
    else:
        if config.backbone_hash not in (None, hash_backbone(config.language.backbone)):
            raise CheckpointError(
                f"the backbone {config.language.backbone!r} holds other weights than in training",
                where="language.backbone",
                remedy="Put the GGUF file, or the version of its package, back that the checkpoint was trained on.",
            )
        backbone = load_backbone(config.language.backbone, quantise=config.language.quantise, whole=whole)
    soft = front.soft_input(int(backbone.config.hidden_size)) if front.width is not None else None
    model = ECGLanguageModel(backbone, vocabulary, front.levels, config.language, soft)
    choose_trained(model)
    return model
