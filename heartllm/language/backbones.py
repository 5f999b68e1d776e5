"""Pretrained backbones: where a causal LM and its tokenizer come from, and whether `ECGLanguageModel` can use it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional as F

from heartllm.errors import UsageError
from heartllm.language import gguf_files

WHERE = "language.backbone"
NAMES = 'Name a folder with a Hugging Face causal LM, a hub model you can reach, a GGUF file, "smollm2" or "tiny".'
SHORTEST_WINDOW = 2048  # positions that one ECG, or two, and a question need at most


def gguf_path(name: str) -> Path | None:
    """The GGUF file that a backbone's name stands for; None where it stands for a folder or a hub model."""
    if name == "smollm2":
        return gguf_files.smollm2_file()
    if not name.endswith(".gguf"):
        return None
    if not Path(name).is_file():
        raise UsageError(f"the backbone {name!r} is not there", where=WHERE, remedy=NAMES)
    return Path(name)


def load_backbone(
    name: str, dtype: torch.dtype = torch.float32, quantise: Literal["4bit"] | None = None, *, whole: bool = False
) -> Any:
    """A pretrained causal LM: "smollm2", a GGUF file, a local folder or, where the user names one and is online, a hub.

    Args:
        dtype: of its weights, but those that are quantised.
        quantise: keep the matrices of its layers in 4 bits (NF4, by bitsandbytes).
        whole: write those matrices out again in `dtype`, with what 4 bits have left of them.

    Raises:
        UsageError: if it cannot be loaded, is of a family that `ECGLanguageModel` does not know, or cannot be
            quantised here.
    """
    from transformers import AutoModelForCausalLM

    path = gguf_path(name)
    if path is not None:
        if quantise:
            remedy = "Leave language.quantise out, or name a folder with a Hugging Face causal LM."
            raise UsageError("a backbone from a GGUF file is not quantised again", where=WHERE, remedy=remedy)
        backbone = gguf_files.read_model(path).to(dtype)
    else:
        how = _four_bits() if quantise else {}
        try:
            backbone = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False, use_safetensors=True, **how)
        except (OSError, ValueError) as error:
            raise UsageError(_unloadable(name, error), where=WHERE, remedy=NAMES) from None
        if quantise and whole:
            backbone = backbone.dequantize()
        for tensor in backbone.parameters():  # not `.to`, which 4-bit models refuse
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    _scale_inputs(backbone)
    check_plain(backbone)
    return backbone


def load_text(name: str) -> tuple[Any, int]:
    """The text tokenizer of a pretrained backbone, and the rows of its embedding.

    Raises:
        UsageError: if they cannot be loaded, or `Vocabulary` cannot use the tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    rows: int | None
    path = gguf_path(name)
    if path is not None:
        tokenizer, rows = gguf_files.read_tokenizer(path)
    else:
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UsageError(_unloadable(name, error), where=WHERE, remedy=NAMES) from None
        rows = getattr(config, "vocab_size", None)
    if rows is None or not tokenizer.is_fast or tokenizer.eos_token_id is None:
        lacks = "is not of text alone" if rows is None else "has no fast tokenizer with an end token"
        raise UsageError(f"the backbone {name!r} {lacks}", where=WHERE, remedy="Use a Llama, Qwen, Mistral or Gemma.")
    return tokenizer, int(rows)


def _unloadable(name: str, error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"the backbone {name!r} cannot be loaded ({line})"


def _four_bits() -> dict[str, Any]:
    """What `from_pretrained` needs for a 4-bit base, as in QLoRA (Dettmers et al., NeurIPS 2023).

    Raises:
        UsageError: where there is no GPU, or no bitsandbytes.
    """
    where = "language.quantise"
    if not torch.cuda.is_available():
        remedy = "Leave it out to keep the backbone whole, or run this where a GPU is."
        raise UsageError("a 4-bit backbone needs a GPU, and there is none here", where=where, remedy=remedy)
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "pip install bitsandbytes, or leave it out to keep the backbone whole."
        raise UsageError("a 4-bit backbone needs bitsandbytes, which is not installed", where=where, remedy=remedy)
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}


def _scale_inputs(backbone: Any) -> None:
    """Has a body whose embedding scales its rows (Gemma) scale the vectors that it is given in their place, too."""
    scale = getattr(backbone.get_input_embeddings(), "embed_scale", None)
    if scale is None:
        return

    def scaled(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = kwargs.get("inputs_embeds")
        return args, kwargs if given is None else {**kwargs, "inputs_embeds": given * torch.as_tensor(scale).to(given)}

    backbone.base_model.register_forward_pre_hook(scaled, with_kwargs=True)


@torch.no_grad()
def check_plain(backbone: Any) -> None:
    """Refuses a backbone whose logits are not its last hidden states times its output rows.

    Some families add a bias to the logits, scale or cap them; `ECGLanguageModel` would leave that out. Nor does its
    mask, which a packed sequence needs, know layers that look back only a short way.

    Raises:
        UsageError: naming the family.
    """
    config, table = backbone.config, backbone.get_input_embeddings().weight
    kind, plain = (
        config.model_type,
        "Use a family without that, such as Llama, Qwen, Mistral, Gemma (the first) or GPT-2.",
    )
    window = getattr(config, "sliding_window", None)
    if window and window < SHORTEST_WINDOW:
        what = f"layers of this {kind!r} model look back only {window} tokens, too few for an ECG and its questions"
        raise UsageError(what, where=WHERE, remedy=plain)
    backbone.eval()
    ids = torch.arange(8, device=table.device)[None] % table.shape[0]
    wanted = backbone(input_ids=ids, use_cache=False).logits
    embedded = F.embedding(ids, table)
    size = ids.shape[1]
    mask = torch.full((1, 1, size, size), torch.finfo(embedded.dtype).min, device=ids.device, dtype=embedded.dtype)
    places = torch.arange(size, device=ids.device)[None]
    try:
        hidden = backbone.base_model(
            inputs_embeds=embedded, position_ids=places, attention_mask=mask.triu(1), use_cache=False
        ).last_hidden_state
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"a {kind!r} model takes no block mask here ({str(error).splitlines()[0]})",
            where=WHERE,
            remedy="Use a newer transformers, or a family such as Llama, Qwen or Mistral.",
        ) from None
    found = hidden @ backbone.get_output_embeddings().weight.T
    caps = getattr(config, "final_logit_softcapping", None)  # so wide that eight tokens may not show it
    if caps or found.shape != wanted.shape or not torch.allclose(found.float(), wanted.float(), rtol=1e-2, atol=1e-2):
        what = f"a {kind!r} model scales or caps its embeddings or logits, which is not supported"
        raise UsageError(what, where=WHERE, remedy=plain)
