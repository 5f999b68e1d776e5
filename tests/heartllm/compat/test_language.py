"""`checkpoint_epoch0.pth`: what is merged into the backbone, against PEFT; what is refused; 4-bit base weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.compat.codec import read_codec
from heartllm.compat.language import PREFIX, read_language
from heartllm.errors import CheckpointError, UsageError

Save = Callable[..., Path]
LAYER = f"{PREFIX}model.layers.1."
PROJECTION = f"{LAYER}self_attn.q_proj"


def logits(model: Any, rows: int) -> torch.Tensor:
    ids = torch.randint(rows, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(input_ids=ids).logits


def peft_model(backbone: Path, state: dict[str, Any]) -> Any:
    """The same state dict loaded by PEFT, as the authors' code does."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    base = LlamaForCausalLM.from_pretrained(backbone).float()
    base.resize_token_embeddings(state[f"{PREFIX}model.embed_tokens.weight"].shape[0], mean_resizing=False)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, lora_dropout=0.05, target_modules=targets))
    inner = {name.removeprefix("llm_model."): v for name, v in state.items() if name.startswith("llm_model.")}
    model.load_state_dict(inner)  # strict: the names in our test files are PEFT's own
    return model.eval()


def test_it_answers_as_the_same_file_loaded_by_peft(
    best: Path, tuned: Path, backbone: Path, language_state: dict[str, Any]
) -> None:
    found = read_language(tuned, backbone, read_codec(best))
    rows = language_state[f"{PREFIX}lm_head.weight"].shape[0]
    torch.testing.assert_close(
        logits(found.model, rows), logits(peft_model(backbone, language_state), rows), atol=2e-4, rtol=1e-4
    )
    assert (found.rank, found.base, found.notes) == (4, "file", ())
    assert found.model.config.vocab_size == rows


def test_every_part_of_the_file_counts(best: Path, backbone: Path, language_state: dict[str, Any], save: Save) -> None:
    codec = read_codec(best)
    rows = language_state[f"{PREFIX}lm_head.weight"].shape[0]
    usual = logits(read_language(save(language_state), backbone, codec).model, rows)
    for name in (
        f"{PROJECTION}.lora_A.default.weight",
        f"{LAYER}mlp.down_proj.lora_B.default.weight",
        f"{LAYER}mlp.gate_proj.base_layer.weight",
        f"{LAYER}input_layernorm.weight",
        f"{PREFIX}model.norm.weight",
    ):
        changed = {**language_state, name: language_state[name] * 1.5}
        assert not torch.allclose(logits(read_language(save(changed), backbone, codec).model, rows), usual, atol=1e-3)


def test_ids_are_the_authors(best: Path, tuned: Path, backbone: Path, language_state: dict[str, Any]) -> None:
    found = read_language(tuned, backbone, read_codec(best))
    text = len(found.vocabulary.tokenizer)
    assert (found.vocabulary.start, found.vocabulary.end, found.vocabulary.first_code) == (text + 1, text + 2, text + 3)
    table = language_state[f"{PREFIX}model.embed_tokens.weight"]
    assert torch.equal(found.model.get_input_embeddings().weight, table)
    assert len(table) == text + 1301


def test_ids_of_llama(
    best: Path, make_backbone: Callable[..., Path], make_state: Callable[[Path], dict[str, Any]], save: Save
) -> None:
    folder = make_backbone(128_256)
    found = read_language(save(make_state(folder)), folder, read_codec(best))
    assert found.model.config.vocab_size == len(found.model.get_input_embeddings().weight) == 129_557
    ids = found.vocabulary.ecg(np.array([0, 7, 1295]))
    assert ids.tolist() == [128_257, 128_259, 128_266, 129_554, 128_258]


def test_an_untied_backbone(
    best: Path, make_backbone: Callable[..., Path], make_state: Callable[[Path], dict[str, Any]], save: Save
) -> None:
    folder = make_backbone(tied=False)
    state = make_state(folder)
    head, table = f"{PREFIX}lm_head.weight", f"{PREFIX}model.embed_tokens.weight"
    assert not torch.equal(state[head], state[table])
    found = read_language(save(state), folder, read_codec(best))
    wanted = logits(peft_model(folder, state), len(state[head]))
    torch.testing.assert_close(logits(found.model, len(state[head])), wanted, atol=2e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match=r"missing \(lm_head.weight\)"):
        read_language(save(drop("lm_head")(state)), folder, read_codec(best))


def test_base_weights_of_the_backbone(best: Path, backbone: Path, language_state: dict[str, Any], save: Save) -> None:
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.from_pretrained(backbone).state_dict()
    own = {
        name: plain[name.removeprefix(PREFIX).replace(".base_layer", "")] if ".base_layer." in name else value
        for name, value in language_state.items()
    }
    rows = language_state[f"{PREFIX}lm_head.weight"].shape[0]
    codec = read_codec(best)
    from_folder = read_language(save(language_state), backbone, codec, base="backbone")
    from_file = read_language(save(own), backbone, codec)
    assert torch.equal(logits(from_folder.model, rows), logits(from_file.model, rows))
    assert from_folder.base == "backbone"
    assert "not from the 4-bit ones" in from_folder.notes[0]
    bare = {name: value for name, value in language_state.items() if ".base_layer." not in name}
    assert torch.equal(
        logits(read_language(save(bare), backbone, codec, base="backbone").model, rows), logits(from_file.model, rows)
    )
    with pytest.raises(CheckpointError, match=r"holds no base weights.*base=backbone"):
        read_language(save(bare), backbone, codec)


def test_an_encoder_in_half_precision_is_named(
    best: Path, backbone: Path, language_state: dict[str, Any], save: Save
) -> None:
    half = {name: v.bfloat16() if name.startswith("enc.") else v for name, v in language_state.items()}
    for leads in ("ptbxl", "mimic"):
        found = read_language(save(half), backbone, read_codec(best, leads))  # type: ignore[arg-type]
        assert "half precision" in found.notes[0]
        assert read_language(save(language_state), backbone, read_codec(best, leads)).notes == ()  # type: ignore[arg-type]
    other = {**language_state, "enc.bottleneck.inc.b3.weight": language_state["enc.bottleneck.inc.b3.weight"] * 1.1}
    with pytest.raises(CheckpointError, match=r"another tokenizer: enc.bottleneck.inc.b3.weight"):
        read_language(save(other), backbone, read_codec(best))


def drop(*parts: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {name: v for name, v in state.items() if not any(part in name for part in parts)}


def put(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, name: value}


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "norms": (drop("layernorm"), r"4 norm weights missing \(model.layers.0.input_layernorm.weight, .*trained too"),
    "last norm": (drop("model.norm"), r"1 norm weights missing \(model.norm.weight\)"),
    "lora": (drop("lora_B"), r"14 tensors missing \(.*mlp.down_proj.lora_B.default.weight, .* and 4 more\)"),
    "encoder": (drop("enc."), r"37 tensors missing \(enc.blocks.0.0.inc.b1.weight"),
    "embeddings": (drop("embed_tokens"), r"1 tensors missing \(model.embed_tokens.weight\)"),
    "one base": (drop("1.mlp.up_proj.base_layer"), r"missing \(model.layers.1.mlp.up_proj.base_layer.weight\)"),
    "decoder": (put("dec.final.bias", torch.zeros(12)), r"1 tensors unexpected \(dec.final.bias\)"),
    "layer": (put(f"{PREFIX}model.layers.7.input_layernorm.weight", torch.ones(32)), "1 tensors unexpected"),
    "rows": (
        put(f"{PREFIX}model.embed_tokens.weight", torch.zeros(99, 32)),
        r"model.embed_tokens.weight has shape \[99, 32\]",
    ),
    "rank": (put(f"{PROJECTION}.lora_B.default.weight", torch.zeros(32, 5)), r"lora_B has shape \[32, 5\]"),
    "norm shape": (put(f"{PREFIX}model.norm.weight", torch.ones(31)), r"has shape \[31\], not \[32\]"),
    "norm nan": (put(f"{PREFIX}model.norm.weight", torch.full((32,), torch.nan)), "holds NaN"),
    "list": (lambda state: list(state.values()), "holds no state dict"),
    "nested": (lambda state: {"model": state}, "'model' is no plain tensor"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_content(best: Path, backbone: Path, language_state: dict[str, Any], save: Save, kind: str) -> None:
    spoil, message = WRONG[kind]
    path = save(spoil(language_state))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_language(path, backbone, read_codec(best))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_untied_head_and_another_backbones_text_rows(
    best: Path, backbone: Path, language_state: dict[str, Any], save: Save
) -> None:
    head, table = f"{PREFIX}lm_head.weight", f"{PREFIX}model.embed_tokens.weight"
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        read_language(save({**language_state, head: language_state[head] + 1}), backbone, read_codec(best))
    other = torch.randn_like(language_state[table])
    with pytest.raises(CheckpointError, match="text rows are not the backbone's"):
        read_language(save({**language_state, head: other, table: other}), backbone, read_codec(best))
    without_head = {name: value for name, value in language_state.items() if name != head}
    assert read_language(save(without_head), backbone, read_codec(best)).rank == 4  # tied weights are often left out


def test_folders_that_are_no_backbone(best: Path, tuned: Path, tmp_path: Path, backbone: Path) -> None:
    codec = read_codec(best)
    with pytest.raises(UsageError, match=r"backbone .*absent: is no folder"):
        read_language(tuned, tmp_path / "absent", codec)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be loaded") as caught:
        read_language(tuned, broken, codec)
    assert "\n" not in str(caught.value)


def quantised(state: dict[str, Any]) -> dict[str, Any]:
    """The state dict as bitsandbytes writes it: packed 4-bit weights and their side keys, statistics nested."""
    from bitsandbytes.functional import quantize_4bit

    found = {}
    for name, value in state.items():
        found[name] = value
        if name.endswith("base_layer.weight"):
            found[name], statistics = quantize_4bit(value, quant_type="nf4", compress_statistics=True)
            found |= {f"{name}.{key}": part for key, part in statistics.as_dict(packed=True).items()}
    return found


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_four_bit_base_weights(best: Path, backbone: Path, language_state: dict[str, Any], save: Save) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed = quantised(language_state)
    name = f"{PROJECTION}.base_layer.weight"
    assert packed[name].dtype == torch.uint8
    assert {f"{name}.absmax", f"{name}.nested_absmax", f"{name}.quant_state.bitsandbytes__nf4"} <= set(packed)
    plain = {
        key: dequantize_4bit(*quantize_4bit(value, quant_type="nf4", compress_statistics=True))
        if key.endswith("base_layer.weight")
        else value
        for key, value in language_state.items()
    }
    rows = language_state[f"{PREFIX}lm_head.weight"].shape[0]
    codec = read_codec(best)
    found = read_language(save(packed), backbone, codec)
    assert found.base == "file (4-bit)"
    assert torch.equal(logits(found.model, rows), logits(read_language(save(plain), backbone, codec).model, rows))
    damaged = {**packed, f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(20, dtype=torch.uint8)}
    with pytest.raises(CheckpointError, match="cannot be read from 4 bits"):
        read_language(save(damaged), backbone, codec)


def test_four_bit_base_weights_without_bitsandbytes(
    best: Path, backbone: Path, language_state: dict[str, Any], save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    packed = dict(language_state)
    for name, value in language_state.items():
        if name.endswith("base_layer.weight"):
            packed[name] = torch.zeros(value.numel() // 2, 1, dtype=torch.uint8)
            packed[f"{name}.absmax"] = torch.zeros(value.numel() // 64, dtype=torch.uint8)
            packed[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(80, dtype=torch.uint8)
    path = save(packed)
    with pytest.raises(UsageError, match=r"in 4 bits, and bitsandbytes.*bitsandbytes; or say base=backbone"):
        read_language(path, backbone, read_codec(best))
    assert read_language(path, backbone, read_codec(best), base="backbone").rank == 4
