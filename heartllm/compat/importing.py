"""The authors' files as folders of ours.

codec.toml, codec.safetensors   their tokenizer: `heartllm tokenize`, `codec-report`, `pretrain` and `tune` take it
llm/                            their language model as a plain Hugging Face model, LoRA merged, rows at their ids
compat.toml                     where all this comes from, hashes included
manifest.json                   SHA-256 of every file above
"""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from heartllm.checkpoint import save_frontend, write_manifest
from heartllm.compat.codec import LeadOrder, read_codec
from heartllm.compat.language import ALPHA, CODES, PAD_ROWS, AuthorsLanguage, BaseWeights, read_language
from heartllm.config import dumps
from heartllm.errors import UsageError
from heartllm.export import grow_tokenizer, write_plain
from heartllm.language.vocabulary import Vocabulary

PAD_TOKEN = "<|PAD|>"
ORIGIN = "HeartLLM's authors (Yang, Sun, Shi; AAAI 2026)"


@dataclass(frozen=True)
class ImportRecord:
    """`compat.toml`: whose work the folder holds, and how it was read.

    Attributes:
        leads: order of the codec's input slots in their training; the folder's codec takes the canonical order.
        step: of the tokenizer's training. base: where base weights come from.
    """

    origin: str
    mode: str
    leads: str
    codec_file: str
    codec_sha256: str
    step: int
    language_file: str = ""
    language_sha256: str = ""
    rank: int = 0
    alpha: float = 0.0
    base: str = ""
    notes: tuple[str, ...] = ()


def import_authors(
    codec: Path,
    out: Path,
    *,
    language: Path | None = None,
    backbone: Path | None = None,
    leads: LeadOrder = "mimic",
    base: BaseWeights = "file",
    alpha: float = ALPHA,
) -> ImportRecord:
    """Writes their tokenizer, and their language model where given, into the new folder `out`, or leaves nothing there.

    Raises:
        UsageError: if `out` exists and is not empty, or a language model comes without its backbone.
        CheckpointError: for files that are not theirs; see `read_codec` and `read_language`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("exists already", where=out, remedy="Name a new folder.")
    if (language is None) != (backbone is None):
        raise UsageError(
            "a language model is read into the backbone that it was tuned from",
            where="--backbone" if backbone is None else "--authors-llm",
            remedy="Give --authors-llm and --backbone together, or neither.",
        )
    found = read_codec(codec, leads)
    record = ImportRecord(ORIGIN, "compat", leads, codec.name, found.hash, found.step)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        save_frontend(found.codec, temporary)
        if language is not None and backbone is not None:
            model = read_language(language, backbone, found, base=base, alpha=alpha)
            _write_language(model, temporary / "llm")
            record = replace(
                record,
                language_file=language.name,
                language_sha256=model.hash,
                rank=model.rank,
                alpha=alpha,
                base=model.base,
                notes=model.notes,
            )
        (temporary / "compat.toml").write_text(dumps(record), encoding="utf-8")
        write_manifest(temporary)
        if out.exists():
            out.rmdir()
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


def _write_language(found: AuthorsLanguage, folder: Path) -> None:
    """A plain Hugging Face model. Rows keep their ids where the tokenizer uses all text rows, as Llama's does."""
    tokenizer = copy.deepcopy(found.vocabulary.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [PAD_TOKEN]})
    text = found.vocabulary.base - PAD_ROWS
    grown, ids = grow_tokenizer(Vocabulary(tokenizer, text + PAD_ROWS, CODES))
    first, modules = found.vocabulary.base, [found.model.get_input_embeddings()]
    if not found.model.config.tie_word_embeddings:
        modules.append(found.model.get_output_embeddings())
    with torch.no_grad():
        for module in modules:
            module.weight[ids] = module.weight[first : first + len(ids)].clone()
    write_plain(found.model, grown, found.vocabulary, folder)
