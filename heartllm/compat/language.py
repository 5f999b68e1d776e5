"""The authors' tuned language model (`checkpoint_epoch0.pth`) as a plain causal LM with LoRA merged into its weights.

Their file is a bare state dict: the encoder (`enc.*`, 37 tensors) and, below `llm_model.base_model.model.`, a PEFT
model on Llama-3.2-3B: all embedding rows, base weights (4-bit nf4 with side keys, or plain), LoRA factors, and the norm
weights, which were trained as well and which LoRA alone would lose. Rows of the vocabulary, T being the backbone's:

    0 ... T-1     text          T+3 ... T+1298   codes 0 ... 1295
    T             <|PAD|>       T+1299, T+1300   never used
    T+1, T+2      <|start_ecg|>, <|end_ecg|>
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heartllm.compat.codec import AuthorsCodec, check_same_encoder
from heartllm.compat.files import as_tensors, check_names, check_tensor, listed
from heartllm.errors import CheckpointError, UsageError
from heartllm.language.vocabulary import NEW_SPECIALS, Vocabulary
from heartllm.texts import hash_file
from heartllm.untrusted import FETCH, read_object

PREFIX = "llm_model.base_model.model."
CODES, PAD_ROWS, UNUSED_ROWS = 1296, 1, 2
NEW_ROWS = PAD_ROWS + NEW_SPECIALS + CODES + UNUSED_ROWS  # 1,301: of Llama-3.2's 128,256 rows they make 129,557
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALPHA = 16.0  # of their LoRA; the file does not hold it
BaseWeights = Literal["file", "backbone"]
_SIDE = re.compile(r"(.+\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)")
_BACKBONE = "Name the folder of the language model that was tuned (theirs: Llama-3.2-3B)."


@dataclass(frozen=True)
class AuthorsLanguage:
    """Their language model, ready to answer.

    Attributes:
        model: a `transformers` causal LM in the given dtype, LoRA merged.
        vocabulary: PAD counts as its last text row, so that ids are theirs.
        hash: SHA-256 of the file.
        rank: of their LoRA.
        base: where the base weights come from: "file", "file (4-bit)" or "backbone".
        notes: what a reader of its numbers should know.
    """

    model: Any
    vocabulary: Vocabulary
    hash: str
    rank: int
    base: str
    notes: tuple[str, ...] = ()


def read_language(
    path: Path,
    backbone: Path,
    codec: AuthorsCodec,
    *,
    base: BaseWeights = "file",
    alpha: float = ALPHA,
    dtype: torch.dtype = torch.float32,
) -> AuthorsLanguage:
    """Reads `checkpoint_epoch0.pth` into the backbone in a local folder.

    Args:
        codec: the tokenizer that it was tuned with.
        base: take the base weights from the file, or from the backbone's folder.
        alpha: of their LoRA.

    Raises:
        CheckpointError: for a file that is damaged, executes something, lacks norm weights or other names, or does not
            fit the backbone or the codec.
        UsageError: if the backbone is no folder with a causal LM, or 4-bit weights cannot be read here.
    """
    found = as_tensors(read_object(path), path, "state dict")
    encoder = {name: tensor for name, tensor in found.items() if name.startswith("enc.")}
    exact = check_same_encoder(codec, encoder, path)
    model, tokenizer = load_folder(backbone, dtype)
    text_rows = int(model.get_input_embeddings().weight.shape[0])
    tensors = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in found.items()
        if name not in encoder and not name.endswith("rotary_emb.inv_freq")
    }
    source = _check_parts(model, tensors, path, base)
    notes = [] if exact else ["its encoder is stored in half precision; codes come from best.pt in float32"]
    if source == "backbone":
        notes.append("base weights come from the backbone's folder, not from the 4-bit ones it was tuned on")
    rank = _merge(model, tensors, path, source, alpha)
    _copy_rest(model, tensors, path)
    vocabulary = Vocabulary(tokenizer, text_rows + PAD_ROWS, CODES)
    return AuthorsLanguage(model.eval(), vocabulary, hash_file(path), rank, source, tuple(notes))


def load_folder(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The causal LM and text tokenizer of a local folder (no hub, no code of the folder's)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise UsageError("is no folder with a Hugging Face model", where=f"backbone {folder}", remedy=_BACKBONE)
    try:
        safe = {"trust_remote_code": False, "local_files_only": True}
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **safe)
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    except Exception as error:  # whatever is wrong with the folder, transformers' errors are of many kinds
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot be loaded ({line})", where=f"backbone {folder}", remedy=_BACKBONE) from None
    highest, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().weight.shape[0]
    if highest >= rows:
        raise UsageError(
            f"its tokenizer counts to {highest}, its model to {rows - 1}", where=f"backbone {folder}", remedy=_BACKBONE
        )
    if tokenizer.eos_token_id is None:
        raise UsageError("its tokenizer has no end token", where=f"backbone {folder}", remedy=_BACKBONE)
    return model.to(dtype).requires_grad_(False), tokenizer


def adapted_layers(model: Any) -> dict[str, nn.Linear]:
    """The linear layers that carry LoRA, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in ADAPTED
    }


def _embedding_names(model: Any) -> tuple[str, str]:
    names = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    return names[id(model.get_input_embeddings())], names[id(model.get_output_embeddings())]


def _plain_parameters(model: Any) -> dict[str, Tensor]:
    """What the file holds as it is: norms (and biases, where a family has them)."""
    layers, embeddings = adapted_layers(model), _embedding_names(model)
    return {
        name: value
        for name, value in model.named_parameters()
        if name not in embeddings and name.removesuffix(".weight") not in layers
    }


def _in_file(name: str, layers: dict[str, nn.Linear]) -> str:
    """Where PEFT keeps a parameter: an adapted layer's bias moves below `base_layer`."""
    layer, _, last = name.rpartition(".")
    return f"{layer}.base_layer.{last}" if layer in layers else name


def _check_parts(model: Any, tensors: dict[str, Tensor], path: Path, base: BaseWeights) -> str:
    """Holds the file's names against the backbone's; returns where base weights will come from."""
    layers, (embedding, head) = adapted_layers(model), _embedding_names(model)
    plain = {_in_file(name, layers) for name in _plain_parameters(model)}
    norms = {name for name in plain if "norm" in name or "ln_" in name}
    if missing := norms - set(tensors):
        raise CheckpointError(
            f"{len(missing)} norm weights missing ({listed(missing)})",
            where=path,
            remedy="They were trained too; without them the answers are another model's. Give the whole state dict.",
        )
    weights = {f"{layer}.base_layer.weight" for layer in layers}
    held = weights & set(tensors)
    side = {name for name in tensors if (match := _SIDE.fullmatch(name)) and match[1] in held}
    factors = {f"{layer}.lora_{factor}.default.weight" for layer in layers for factor in "AB"}
    tied = model.config.tie_word_embeddings
    expected = plain | factors | {embedding} | side | ({head} & set(tensors) if tied else {head})
    expected |= weights if base == "file" and held else held
    remedy = f"The file must belong to the backbone ({model.config.model_type}, {len(layers) // 7} layers). {_BACKBONE}"
    check_names(tensors, expected, path, remedy)
    if base == "backbone":
        return "backbone"
    if not held:
        raise CheckpointError(
            "holds no base weights", where=path, remedy="Say base=backbone to take them from the backbone's folder."
        )
    return "file (4-bit)" if side else "file"


def _merge(model: Any, tensors: dict[str, Tensor], path: Path, source: str, alpha: float) -> int:
    """Base weights + alpha / rank * B A, layer by layer in float32; returns the rank."""
    rank = 0
    for name, layer in adapted_layers(model).items():
        down, up = (tensors[f"{name}.lora_{factor}.default.weight"] for factor in "AB")
        rank = rank or int(down.shape[0])
        check_tensor(f"{name}.lora_A", down, (rank, layer.in_features), path)
        check_tensor(f"{name}.lora_B", up, (layer.out_features, rank), path)
        weight = layer.weight.float()
        if source != "backbone":
            weight = base_weight(f"{name}.base_layer.weight", tensors, tuple(weight.shape), path)
        layer.weight.copy_(weight + alpha / rank * (up.float() @ down.float()))
    return rank


def base_weight(name: str, tensors: dict[str, Tensor], shape: tuple[int, ...], path: Path) -> Tensor:
    """A base weight of the file as float32: as it is, or from 4 bits by bitsandbytes, which wrote them.

    Raises:
        UsageError: if the weights are 4-bit and bitsandbytes is not there.
    """
    if tensors[name].is_floating_point():
        check_tensor(name, tensors[name], shape, path)
        return tensors[name].float()
    try:
        functional: Any = importlib.import_module("bitsandbytes.functional")
    except (ImportError, OSError, RuntimeError):
        raise UsageError(
            "its base weights are in 4 bits, and bitsandbytes, which reads them, is not here",
            where=path,
            remedy="pip install bitsandbytes; or say base=backbone: LoRA, embeddings and norms are then taken from the "
            "file, base weights from the backbone's folder.",
        ) from None
    side = {other.removeprefix(f"{name}."): tensor for other, tensor in tensors.items() if other.startswith(f"{name}.")}
    try:
        state = functional.QuantState.from_dict(dict(side), device=torch.device("cpu"))
        if tuple(state.shape) != shape:
            raise ValueError(f"its shape is {list(state.shape)}, not {list(shape)}")
        weight: Tensor = functional.dequantize_4bit(tensors[name].contiguous(), state).float()
    except Exception as error:  # side keys of a damaged file can make the library raise anything
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{name} cannot be read from 4 bits ({line})", where=path, remedy=FETCH) from None
    check_tensor(name, weight, shape, path)
    return weight


def _copy_rest(model: Any, tensors: dict[str, Tensor], path: Path) -> None:
    """Norms as they are, and all embedding rows; text rows must be the backbone's, which the authors put back."""
    layers = adapted_layers(model)
    for name, parameter in _plain_parameters(model).items():
        held = tensors[_in_file(name, layers)]
        check_tensor(name, held, tuple(parameter.shape), path)
        parameter.copy_(held)
    text, hidden = model.get_input_embeddings().weight.shape
    embedding, head = _embedding_names(model)
    tables = {name: tensors[name] for name in (embedding, head) if name in tensors}
    for name, table in tables.items():
        check_tensor(name, table, (text + NEW_ROWS, hidden), path)
    tied = bool(model.config.tie_word_embeddings)
    if tied and not torch.equal(tables[embedding], tables.get(head, tables[embedding])):
        raise CheckpointError(f"{head} differs from {embedding}, but the backbone ties them", where=path, remedy=FETCH)
    rows, ours = tables[embedding][:text].float(), model.get_input_embeddings().weight.float()
    if float((rows - ours).abs().mean()) > 0.02 * float(ours.abs().mean()):
        raise CheckpointError("its text rows are not the backbone's", where=path, remedy=_BACKBONE)
    model.resize_token_embeddings(text + NEW_ROWS, mean_resizing=False)
    model.get_input_embeddings().weight.copy_(tables[embedding])
    if not tied:
        model.get_output_embeddings().weight.copy_(tables[head])
    model.requires_grad_(False)
