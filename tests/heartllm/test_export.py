"""An exported model answers by itself what the checkpoint answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import CheckpointConfig, new_language, save_frontend, save_language, write_manifest
from heartllm.codec.codec import Codec, CodecConfig
from heartllm.errors import CheckpointError, UsageError
from heartllm.export import export
from heartllm.language.generation import ResponderItem
from heartllm.language.model import LanguageConfig, LoraSettings
from heartllm.language.prompts import prompt_text
from heartllm.language.vocabulary import code_token
from heartllm.responder import Responder

CODEC = CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)


def write_checkpoint(folder: Path, tokenizer: Any, language: LanguageConfig, rows: int, **changes: Any) -> Path:
    """A finished checkpoint of a model that nobody trained; LoRA's factors are drawn so that they matter."""
    config = CheckpointConfig(CODEC, language, rows, **changes)
    model = new_language(config, tokenizer)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and (parameter.requires_grad or language.backbone == "tiny"):
                parameter.normal_(std=0.2 if "lora" in name else 0.4)
        for table in (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings()):
            table.weight[len(tokenizer) :] = 0.0  # rows that the tokenizer does not use are never said
    save_frontend(Codec(CODEC), folder)
    save_language(folder, model, config, {})
    write_manifest(folder)
    return folder


def assert_same_answers(checkpoint: Path, exported: Path, features: str = "Age: 54 years. Sex: male.") -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForCausalLM.from_pretrained(exported)
    responder = Responder.load(checkpoint)
    rng, answers = np.random.default_rng(0), set()
    for number in range(3):
        codes = None if responder.blind else rng.integers(0, 36, 25)
        for question in ("Does this ECG show symptoms of sinus bradycardia?", None):
            item = ResponderItem(str(number), codes, question, features)
            wanted = next(responder.answer([item], max_new_tokens=10))
            prompt = prompt_text(features, codes, question, responder.config.layout)
            inputs = tokenizer(prompt, return_tensors="pt")
            output = model.generate(**inputs, max_new_tokens=10)
            found = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            assert found.strip() == wanted
            answers.add(wanted)
    assert len(answers) > 1


@pytest.mark.parametrize("train", ["all", "lora"])
@pytest.mark.parametrize("layout", ["ecg-first", "question-first"])
def test_tiny(tokenizer: Any, tiny_config: Any, tmp_path: Path, train: Any, layout: Any) -> None:
    from dataclasses import replace

    language = replace(tiny_config, train=train)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tokenizer, language, len(tokenizer), layout=layout)
    export(checkpoint, tmp_path / "exported")
    assert_same_answers(checkpoint, tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["rope_theta"] == tiny_config.tiny.rope_theta
    assert config["vocab_size"] == len(tokenizer) + 2 + 36
    assert "lora" not in json.dumps(config)


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("train", ["all", "lora"])
def test_other_families(
    tokenizer: Any, backbone_folder: Callable[[str], Path], tmp_path: Path, kind: str, train: Any
) -> None:
    targets = {"gpt_neox": ("query_key_value",), "gpt2": ("c_attn",)}.get(kind, LoraSettings().targets)
    language = LanguageConfig(backbone=str(backbone_folder(kind)), train=train, lora=LoraSettings(4, targets=targets))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tokenizer, language, len(tokenizer) + 5)
    export(checkpoint, tmp_path / "exported")
    assert_same_answers(checkpoint, tmp_path / "exported")


def test_a_blind_control_exports_too(tokenizer: Any, tiny_config: Any, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer), blind=True)
    export(checkpoint, tmp_path / "exported")
    assert_same_answers(checkpoint, tmp_path / "exported")


def test_the_exported_tokenizer_spells_codes_as_single_tokens(tokenizer: Any, tiny_config: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer))
    export(checkpoint, tmp_path / "exported")
    exported = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ids = exported("".join(code_token(code) for code in range(36)))["input_ids"]
    base = len(tokenizer)
    assert ids == [tokenizer.bos_token_id, *range(base + 2, base + 38)]
    assert exported.decode(ids) == tokenizer.bos_token + "".join(code_token(code) for code in range(36))
    assert exported.decode(ids, skip_special_tokens=True) == ""


def test_a_folder_in_use_is_refused_and_a_failed_export_leaves_nothing(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer))
    with pytest.raises(UsageError, match="exists already"):
        export(checkpoint, checkpoint)

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("heartllm.export._write_rope_theta", fail)
    with pytest.raises(OSError, match="disk full"):
        export(checkpoint, tmp_path / "exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_a_tokenizer_that_reads_the_string_otherwise_is_refused(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer))
    monkeypatch.setattr("heartllm.export.prompt_text", lambda *parts: " " + prompt_text(*parts))
    with pytest.raises(CheckpointError, match="in another way"):
        export(checkpoint, tmp_path / "exported")
