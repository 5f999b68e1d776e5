"""The authors' ECG tokenizer (`best.pt`) as a codec of ours.

Their file is {"model": 73 tensors, "step": n}; ours is the `paper` network with shared lead weights, sigmoid FSQ and
z-scored leads, whose parts carry the same names. It runs in float32, as theirs was trained; run in bfloat16, as theirs
is beside the language model, about 5 % of the codes differ.

Their leads have no names, only positions. MIMIC-IV-ECG, which the tokenizer was trained on, stores aVF before aVL, and
PTB-XL aVL before aVF. A codec read with `leads="mimic"` takes our canonical order and gives each lead to the slot it
had in MIMIC: the slots' columns of the mixing layer are exchanged, which changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.compat.files import as_tensors, check_names, check_tensor
from heartllm.ecg.recording import LEADS
from heartllm.errors import CheckpointError
from heartllm.texts import hash_file
from heartllm.untrusted import FETCH, read_object

LeadOrder = Literal["ptbxl", "mimic"]
SLOTS: dict[LeadOrder, tuple[str, ...]] = {
    "ptbxl": LEADS,
    "mimic": ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"),
}
MIMIC_FORMAT = ("mimic", "synthetic-b")  # datasets stored as MIMIC-IV-ECG is; all others as PTB-XL
LEAD_CHANNELS = 32


@dataclass(frozen=True)
class AuthorsCodec:
    """A codec read from `best.pt`.

    Attributes:
        codec: ours; takes canonical leads in mV.
        step: of their training, as the file says.
        hash: SHA-256 of the file.
        leads: the order of the slots that canonical leads are given to.
    """

    codec: Codec
    step: int
    hash: str
    leads: LeadOrder


def authors_config(decoder_width: int = 384) -> CodecConfig:
    """The settings that make our codec theirs."""
    return CodecConfig(
        network="paper", scale="zscore", lead_weights="shared", fsq="sigmoid", decoder_width=decoder_width
    )


def our_name(name: str) -> str:
    """Their parameter name -> ours ("enc.to_code.bias" -> "encoder.to_code.bias")."""
    part, _, rest = name.partition(".")
    if part == "dec":
        return f"decoder.{rest}"
    return f"encoder.{rest}" if rest.startswith("to_code") else f"encoder.leads.0.{rest}"


def their_name(name: str) -> str:
    """Our parameter name -> theirs, the inverse of `our_name`."""
    part, _, rest = name.partition(".")
    return f"dec.{rest}" if part == "decoder" else f"enc.{rest.removeprefix('leads.0.')}"


def read_codec(path: Path, leads: LeadOrder = "ptbxl") -> AuthorsCodec:
    """Reads `best.pt`.

    Args:
        leads: order of the input slots; "ptbxl" leaves the weights as they are.

    Raises:
        CheckpointError: for a file that is damaged, executes something, or has other names or shapes.
    """
    found = read_object(path)
    if not isinstance(found, dict) or set(found) != {"model", "step"}:
        keys = sorted(map(str, found))[:10] if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f'is not {{"model", "step"}} but {keys}', where=path, remedy="Name their best.pt.")
    tensors, step = as_tensors(found["model"], path, "model"), found["step"]
    if isinstance(step, Tensor) and step.numel() == 1:
        step = step.item()
    if not isinstance(step, int):
        raise CheckpointError(f"its step is {type(step).__name__}, not a number", where=path, remedy=FETCH)
    return AuthorsCodec(_build(tensors, path, leads), step, hash_file(path), leads)


def _build(tensors: dict[str, Tensor], path: Path, leads: LeadOrder) -> Codec:
    expand = tensors.get("dec.expand.weight")
    width = int(expand.shape[0]) if expand is not None and expand.ndim == 2 else 384
    if width == 0 or width % 8:
        raise CheckpointError(f"its decoder has {width} channels, no multiple of 8", where=path, remedy=FETCH)
    with torch.device("meta"):  # without memory: the width is the file's word until all tensors bear it out
        described = Codec(authors_config(width))
    wanted = {their_name(name): tuple(value.shape) for name, value in described.named_parameters()}
    check_names(tensors, wanted, path)
    for name, shape in wanted.items():
        check_tensor(name, tensors[name], shape, path)
    codec = Codec(authors_config(width)).eval()
    state = {our_name(name): tensors[name].float() for name in wanted}
    codec.load_state_dict({**codec.state_dict(), **_to_canonical(state, leads)})
    return codec


def _to_canonical(state: dict[str, Tensor], leads: LeadOrder) -> dict[str, Tensor]:
    """Weights that expect slots in the order `leads` -> weights that expect (and return) the canonical order."""
    slot = torch.tensor([SLOTS[leads].index(lead) for lead in LEADS])
    mixing = state["encoder.to_code.weight"]  # (4, 12 * 32), lead after lead
    columns = mixing.reshape(len(mixing), len(LEADS), LEAD_CHANNELS)[:, slot].reshape_as(mixing)
    last = ("decoder.final.weight", "decoder.final.bias")
    return {**state, "encoder.to_code.weight": columns, **{name: state[name][slot] for name in last if name in state}}


def check_same_encoder(codec: AuthorsCodec, encoder: dict[str, Tensor], path: Path) -> bool:
    """Whether the encoder beside a language model (`enc.*`, 37 tensors) is that of `codec`, bit for bit.

    False where it was stored in half precision and agrees to that.

    Raises:
        CheckpointError: if names or shapes differ, or it is another encoder: its codes would mean other things.
    """
    ours = {
        their_name(name): value for name, value in codec.codec.named_parameters() if not name.startswith("decoder.")
    }
    check_names(encoder, ours, path)
    exact = True
    slot = torch.tensor([LEADS.index(lead) for lead in SLOTS[codec.leads]])
    for name, value in ours.items():
        check_tensor(name, encoder[name], tuple(value.shape), path)
        if name == "enc.to_code.weight":
            value = value.reshape(len(value), len(LEADS), LEAD_CHANNELS)[:, slot].reshape_as(value)
        if not torch.allclose(encoder[name].float(), value, rtol=2**-7, atol=1e-6):
            raise CheckpointError(
                f"was tuned with another tokenizer: {name} differs",
                where=path,
                remedy="Give the best.pt that belongs to it.",
            )
        exact = exact and torch.equal(encoder[name].float(), value)
    return exact
