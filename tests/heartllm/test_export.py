"""An exported model answers by itself what the checkpoint answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import CheckpointError, UsageError
from heartllm.export import export
from heartllm.language.generation import ResponderItem
from heartllm.language.model import LanguageConfig, LoraSettings
from heartllm.language.prompts import prompt_text
from heartllm.language.vocabulary import code_token
from heartllm.responder import Responder

Write = Callable[..., Path]


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
def test_tiny(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write, train: Any, layout: Any
) -> None:
    from dataclasses import replace

    language = replace(tiny_config, train=train)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tokenizer, language, len(tokenizer), layout=layout)
    export(checkpoint, tmp_path / "exported")
    assert_same_answers(checkpoint, tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["rope_theta"] == tiny_config.tiny.rope_theta
    assert config["vocab_size"] == len(tokenizer) + 2 + 36
    assert "lora" not in json.dumps(config)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen2-tied", "qwen3", "gemma", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("train", ["all", "lora"])
def test_other_families(
    tokenizer: Any,
    backbone_folder: Callable[[str], Path],
    tmp_path: Path,
    write_checkpoint: Write,
    kind: str,
    train: Any,
) -> None:
    targets = {"gpt_neox": ("query_key_value",), "gpt2": ("c_attn",)}.get(kind, LoraSettings().targets)
    language = LanguageConfig(backbone=str(backbone_folder(kind)), train=train, lora=LoraSettings(4, targets=targets))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tokenizer, language, len(tokenizer) + 5)
    export(checkpoint, tmp_path / "exported")
    assert_same_answers(checkpoint, tmp_path / "exported")


def test_a_blind_control_exports_too(tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer), blind=True)
    export(checkpoint, tmp_path / "exported")
    assert_same_answers(checkpoint, tmp_path / "exported")


def test_the_exported_tokenizer_spells_codes_as_single_tokens(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write
) -> None:
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
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
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
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer))
    monkeypatch.setattr("heartllm.export.prompt_text", lambda *parts: " " + prompt_text(*parts))
    with pytest.raises(CheckpointError, match="in another way"):
        export(checkpoint, tmp_path / "exported")
