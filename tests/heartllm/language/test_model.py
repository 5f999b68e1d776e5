"""The language model: which parameters train, how heads start, and which backbones it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import CheckpointConfig, load_language, new_language, save_frontend, save_language
from heartllm.codec.codec import CodecConfig
from heartllm.errors import CheckpointError, UsageError
from heartllm.frontends.fsq import FSQCodes
from heartllm.language.model import (
    ECGLanguageModel,
    LanguageConfig,
    LoraSettings,
    TinyConfig,
    build_tiny,
)
from heartllm.language.packing import collate, pack
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids
from heartllm.training.objective import Weights, language_losses

GPT_NEOX = ("query_key_value", "dense_h_to_4h", "dense_4h_to_h")
GPT2 = ("c_attn", "c_fc")
FAMILIES = dict.fromkeys(("llama", "qwen2", "qwen2-tied", "qwen3", "mistral", "gemma")) | {
    "gpt_neox": GPT_NEOX,
    "gpt2": GPT2,
}


def batch_of(vocabulary: Any) -> Any:
    prefix, span = prefix_ids(vocabulary, "Age: 54 years.", np.arange(30))
    pairs = [(prompt_ids(vocabulary, "What is the heart axis?"), answer_ids(vocabulary, "left axis deviation"))]
    return collate([pack(prefix, pairs, span)], vocabulary.pad)


def one_step(model: Any, vocabulary: Any) -> None:
    """One optimiser step on answers and forecasting."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    findings = torch.zeros(1, 0, dtype=torch.int8)
    model.train()
    for _ in range(2):  # LoRA's second factor starts at zero, so that its first one moves in the second step only
        optimiser.zero_grad()
        language_losses(model, None, batch_of(vocabulary), findings, Weights(1.0, 1.0, 0.0))["loss"].backward()
        optimiser.step()
    model.eval()


@pytest.mark.parametrize(("train", "norms"), [("lora", False), ("lora+norms", True)])
def test_lora_leaves_the_backbone_bit_equal(
    vocabulary: Any, make_model: Callable[..., Any], train: str, norms: bool
) -> None:
    model = make_model(train=train)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    one_step(model, vocabulary)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    for name in before:
        expected = "lora_" in name or name.startswith("rows.") or (norms and "norm" in name)
        assert (name in moved) == expected, name


def test_all_moves_everything(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    one_step(model, vocabulary)
    assert {name for name, p in model.named_parameters() if torch.equal(p, before[name])} == set()


def test_lora_starts_as_the_backbone_itself(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    batch = batch_of(vocabulary)
    with torch.no_grad():
        plain, adapted = (
            make_model(train=how).eval().hidden_states(batch.ids, batch.positions, batch.mask)
            for how in ("all", "lora")
        )
    assert torch.equal(plain, adapted)


def test_heads_of_the_lower_layers_start_at_their_distance(vocabulary: Any) -> None:
    config = TinyConfig()
    backbone = build_tiny(config, vocabulary, 0)
    torch.manual_seed(0)
    hidden = torch.randn(1, 60, config.hidden)
    size = config.hidden // config.heads
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    cosine, sine = backbone.model.rotary_emb(hidden, torch.arange(60)[None])
    for number in range(config.local_layers):
        attention = backbone.model.layers[number].self_attn
        with torch.no_grad():
            queries, keys = (
                projection(0 * hidden).view(1, 60, config.heads, size).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj)
            )
            queries, keys = apply_rotary_pos_emb(queries, keys, cosine, sine)
            scores = (queries @ keys.transpose(2, 3) / size**0.5)[0]
        for head in range(config.heads):
            distance = head * config.heads**number
            back = scores[head, 59].flip(0)  # by distance from the last position
            assert int(back.argmax()) == distance
            assert back[distance] > 1.3 * back.mean()


def test_all_layers_gives_one_state_more_than_layers(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    batch, model = batch_of(vocabulary), make_model()
    last, states = model.hidden_states(batch.ids, batch.positions, batch.mask, all_layers=True)
    assert len(states) == 3
    assert torch.equal(states[-1], last)


def test_a_backbone_with_other_rows_than_the_vocabulary_is_refused(vocabulary: Any, tiny_config: Any) -> None:
    from dataclasses import replace

    other = build_tiny(tiny_config.tiny, replace(vocabulary, base=vocabulary.base + 1), 0)
    with pytest.raises(UsageError, match="text rows"):
        ECGLanguageModel(other, vocabulary, (3, 3, 2, 2), tiny_config)


@pytest.mark.parametrize("train", ["all", "lora", "lora+norms"])
@pytest.mark.parametrize("kind", list(FAMILIES))
def test_other_families_train_save_and_reload(
    tokenizer: Any, backbone_folder: Callable[[str], Path], tmp_path: Path, kind: str, train: Any
) -> None:
    lora = LoraSettings(rank=4, targets=FAMILIES[kind] or LoraSettings().targets)
    language = LanguageConfig(backbone=str(backbone_folder(kind)), train=train, lora=lora)
    config = CheckpointConfig(CodecConfig(levels=(3, 3, 2, 2)), language, len(tokenizer) + 5)
    model = new_language(config, tokenizer)
    assert model.tied == (kind in ("qwen2-tied", "qwen3", "gemma", "gpt2"))
    one_step(model, model.vocabulary)
    save_frontend(FSQCodes(config.codec), tmp_path / "out")
    save_language(tmp_path / "out", model, config, {"tuning": [{"step": 2}]})
    again, reread = load_language(tmp_path / "out")
    assert reread == config
    batch = batch_of(model.vocabulary)
    with torch.no_grad():
        a, b = (m.hidden_states(batch.ids, batch.positions, batch.mask) @ m.output_table().T for m in (model, again))
    assert torch.equal(a, b)
    if train != "all":
        size = (tmp_path / "out" / "language.safetensors").stat().st_size
        assert size < sum(p.numel() * 4 for p in model.parameters()) / 2


def test_a_tokenizer_larger_than_the_backbone_is_refused(tokenizer: Any, tiny_config: Any) -> None:
    config = CheckpointConfig(CodecConfig(levels=(3, 3, 2, 2)), tiny_config, len(tokenizer) - 1)
    with pytest.raises(CheckpointError, match="text rows"):
        new_language(config, tokenizer)
