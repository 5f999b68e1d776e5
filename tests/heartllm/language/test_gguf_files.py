"""GGUF files: a small one, written by the package `gguf`, and SmolLM2's where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import CheckpointConfig, hash_backbone, new_language
from heartllm.codec.codec import CodecConfig
from heartllm.errors import CheckpointError, UsageError
from heartllm.language import gguf_files
from heartllm.language.backbones import load_backbone, load_text
from heartllm.language.model import LanguageConfig

gguf = pytest.importorskip("gguf")

TEXT = "Does this ECG show  2 beats, 54 years? <|im_end|> sinus"
Write = Callable[..., Path]


def pairs_from_halves(weight: Any, heads: int) -> Any:
    """Hugging Face's order of a head's rows into llama.cpp's, index by index."""
    size = len(weight) // heads
    order = [h * size + half * size // 2 + i for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    return weight[order]


@pytest.fixture(scope="module")
def llama(tokenizer: Any) -> Any:
    """Grouped heads, untied, and weights large enough for places and heads to matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, rope_theta=50_000.0, rms_norm_eps=1e-5, **shape)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim == 2 else parameter.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture
def write(llama: Any, tokenizer: Any, tmp_path: Path) -> Write:
    """write(kind of quantisation, **changed fields) -> a GGUF file of `llama` and the shared tokenizer."""
    import json

    def make(kind: str = "F32", *, extra: str = "", without: str = "", tied: bool = False, **changes: Any) -> Path:
        path = tmp_path / f"{kind}.gguf"
        writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
        writer.add_context_length(512)
        writer.add_embedding_length(64)
        writer.add_block_count(2)
        writer.add_feed_forward_length(96)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_rope_freq_base(50_000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        if changes.get("scaled"):
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        words = sorted(state["vocab"], key=state["vocab"].get)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(changes.get("pre", "smollm"))
        writer.add_token_list(words)
        special = (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token)
        writer.add_token_types([3 if word in special else 1 for word in words])
        writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
        writer.add_bos_token_id(tokenizer.bos_token_id)
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        for name, value in llama.state_dict().items():
            if name == without or (tied and name == "lm_head.weight"):
                continue
            array = value.numpy()
            for part, heads in (("q_proj", 4), ("k_proj", 2)):
                array = pairs_from_halves(array, heads) if part in name else array
            stored = names.get_name(name, try_suffixes=(".weight",))
            if kind == "F32" or array.ndim == 1:
                writer.add_tensor(stored, np.ascontiguousarray(array))
            else:
                quantised = gguf.quantize(np.ascontiguousarray(array), gguf.GGMLQuantizationType[kind])
                writer.add_tensor(stored, quantised, raw_dtype=gguf.GGMLQuantizationType[kind])
        if extra:
            writer.add_tensor(extra, np.ones(8, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def logits(model: Any, ids: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return found


def test_the_model_that_was_written_comes_back(llama: Any, write: Write) -> None:
    found = gguf_files.read_model(write())
    assert (found.dtype, found.config.tie_word_embeddings, found.config.rms_norm_eps) == (torch.float32, False, 1e-5)
    assert {name: v.tolist() for name, v in found.state_dict().items()} == {
        name: v.tolist() for name, v in llama.state_dict().items()
    }
    ids = list(range(20, 60))
    assert torch.equal(logits(found, ids), logits(llama, ids))


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_quantised_weights_are_those_that_transformers_reads(llama: Any, write: Write, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    path = write(kind)
    found = load_backbone(str(path))
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    for name, value in theirs.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.float()), name
    ids = list(range(20, 60))
    torch.testing.assert_close(logits(found, ids), logits(theirs, ids))
    exact = llama.state_dict()["model.layers.1.self_attn.k_proj.weight"]
    apart = (found.state_dict()["model.layers.1.self_attn.k_proj.weight"] - exact).abs().max()
    assert 0 < float(apart) < {"Q4_1": 0.1, "Q8_0": 0.01}[kind]  # 15 or 254 steps over a block of 32


def test_a_block_of_four_bits_is_scale_times_number_plus_least(write: Write) -> None:
    """Q4_1 by its definition: float16 scale and minimum, then 32 numbers, the first half in the low bits."""
    path = write("Q4_1")
    (tensor,) = (one for one in gguf.GGUFReader(path).tensors if one.name == "blk.0.ffn_up.weight")
    raw = np.array(tensor.data[5, :20])
    scale, least = (float(one) for one in raw[:4].view(np.float16))
    wanted = np.concatenate([raw[4:] & 15, raw[4:] >> 4]) * scale + least
    found = gguf_files.read_model(path).model.layers[0].mlp.up_proj.weight[5, :32]
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_a_file_without_output_rows_is_tied(write: Write) -> None:
    found = gguf_files.read_model(write(tied=True))
    assert found.config.tie_word_embeddings
    assert found.get_output_embeddings().weight is found.get_input_embeddings().weight


def test_the_tokenizer_reads_as_the_one_that_was_written(tokenizer: Any, write: Write) -> None:
    found, rows = load_text(str(write()))
    assert rows == len(tokenizer)
    assert found.encode(TEXT, add_special_tokens=False) == tokenizer.encode(TEXT, add_special_tokens=False)
    assert found.decode(found.encode(TEXT)) == TEXT
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    assert found.encode(f"a{tokenizer.eos_token}")[-1] == tokenizer.eos_token_id
    assert found.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gpt2"}, "holds no Llama but 'gpt2'"),
        ({"scaled": True}, "scales RoPE"),
        ({"extra": "rope_freqs.weight"}, "holds rope_freqs.weight, which a plain Llama has not"),
        ({"without": "model.layers.1.mlp.up_proj.weight"}, "lacks model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_what_is_no_plain_llama_is_refused(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_backbone(str(write(**changes)))


def test_a_checkpoint_holds_to_the_weights_that_it_was_trained_on(write: Write) -> None:
    path = write()
    tokenizer, rows = load_text(str(path))
    language = LanguageConfig(backbone=str(path), train="lora")
    config = CheckpointConfig(CodecConfig(levels=(3, 3, 2, 2)), language, rows, backbone_hash=hash_backbone(str(path)))
    assert new_language(config, tokenizer).levels == (3, 3, 2, 2)
    write("Q8_0").replace(path)
    with pytest.raises(CheckpointError, match="other weights than in training"):
        new_language(config, tokenizer)


def test_files_that_cannot_be_read_are_refused(write: Write, tmp_path: Path) -> None:
    whole = write().read_bytes()
    for name, content in (("no", b"nothing"), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read as GGUF"):
            load_backbone(str(path))
    with pytest.raises(UsageError, match="is not there"):
        load_backbone(str(tmp_path / "other.gguf"))
    with pytest.raises(UsageError, match="kind 'gpt2/llama-bpe'"):
        load_text(str(write(pre="llama-bpe")))
    with pytest.raises(UsageError, match="not quantised again"):
        load_backbone(str(write()), quantise="4bit")
