"""Files of exactly the keys and shapes that the authors' code writes, from the facts and not from our classes.

Imports of the model stack stay inside, so that a base install can collect the folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]

CORPUS = [
    "<|start_prompt|>The data are ECG time series. Based on a 12-lead ECG (500 Hz) and background information, answer",
    "a clinical question. Question: Does this ECG show symptoms of sinus bradycardia?<|end_prompt|>Answer: yes.no",
    "Based on the given ECG, generate a diagnostic report. Background: Patient Information: - Age: 54; Report:",
]
HIDDEN, LAYERS, HEADS, KEY_HEADS, WIDE, RANK = 32, 2, 4, 2, 48, 4
NEW_ROWS = 1 + 2 + 1296 + 2


def inception(prefix: str, channels_in: int, channels: int) -> dict[str, tuple[int, ...]]:
    part = channels // 4
    return {
        f"{prefix}.inc.b1.weight": (part, channels_in, 3),
        f"{prefix}.inc.b2.weight": (part, channels_in, 5),
        f"{prefix}.inc.b3.weight": (part, channels_in, 7),
        f"{prefix}.inc.b4.weight": (part, channels_in, 1),
        f"{prefix}.norm.weight": (channels,),
        f"{prefix}.norm.bias": (channels,),
    }


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """The encoder's 37 tensors."""
    shapes: dict[str, tuple[int, ...]] = {"enc.blocks.0.0.match.weight": (32, 1, 1)}
    for i in range(4):
        shapes |= inception(f"enc.blocks.{i}.0", 1 if i == 0 else 32, 32)
        shapes[f"enc.blocks.{i}.1.weight"] = (32, 32, 3)
    shapes |= inception("enc.bottleneck", 32, 32)
    return {**shapes, "enc.to_code.weight": (4, 384), "enc.to_code.bias": (4,)}


def codec_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """All 73 tensors; `width` is 384 in the authors' file."""
    shapes = encoder_shapes()
    for i in range(4):
        shapes |= {f"dec.up.{i}.weight": (width, width, 3), f"dec.up.{i}.bias": (width,)}
        shapes |= inception(f"dec.dec.{i}", width, width)
    shapes |= {"dec.expand.weight": (width, 4), "dec.expand.bias": (width,)}
    return {**shapes, "dec.final.weight": (12, width, 1), "dec.final.bias": (12,)}


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Any]:
    """Random weights."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan = max(1, torch.Size(shape[1:]).numel())
        value = torch.randn(shape, generator=generator) / fan**0.5
        if name.endswith("norm.weight"):
            value = 1 + 0.3 * value
        state[name] = value
    return state


@pytest.fixture(scope="session")
def codec_state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small decoder, the full encoder, with a mixing layer that spreads its codes over the levels."""
    import torch

    from heartllm.compat.codec import read_codec

    state = draw(codec_shapes(16))
    path = tmp_path_factory.mktemp("codec") / "best.pt"
    torch.save({"model": state, "step": 0}, path)
    codec = read_codec(path).codec
    with torch.no_grad():
        signal = torch.from_numpy(invented("ptbxl", 9).signal)[None]
        latent = codec.encoder(codec.to_network(signal)[0])[0]
    spread = 1.5 / latent.std(0)
    state["enc.to_code.bias"] = (state["enc.to_code.bias"] - latent.mean(0)) * spread
    state["enc.to_code.weight"] = state["enc.to_code.weight"] * spread[:, None]
    return state


@pytest.fixture
def full_codec_state() -> dict[str, Any]:
    """Of the authors' own size."""
    return draw(codec_shapes(384))


@pytest.fixture
def best(codec_state: dict[str, Any], tmp_path: Path) -> Path:
    """A `best.pt` with a small decoder."""
    import torch

    path = tmp_path / "best.pt"
    torch.save({"model": codec_state, "step": 1200}, path)
    return path


def write_backbone(folder: Path, rows: int | None = None, tied: bool = True) -> None:
    """A folder with a tiny Llama, weights wide enough for its answers to vary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from heartllm.language.vocabulary import train_text_tokenizer

    tokenizer = train_text_tokenizer(CORPUS * 3, 330)
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows or len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=WIDE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS,
            max_position_embeddings=1024,
            tie_word_embeddings=tied,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4) if parameter.ndim == 2 else parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def make_backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_backbone(rows, tied) -> the folder of `write_backbone`."""

    def make(rows: int | None = None, tied: bool = True) -> Path:
        folder = tmp_path_factory.mktemp("backbone")
        write_backbone(folder, rows, tied)
        return folder

    return make


@pytest.fixture(scope="session")
def backbone(make_backbone: Callable[..., Path]) -> Path:
    """Tied, as Llama-3.2-3B is, and with no more rows than its tokenizer uses."""
    return make_backbone()


def layer_shapes() -> dict[str, tuple[int, int]]:
    keys = HIDDEN * KEY_HEADS // HEADS
    attention = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (keys, HIDDEN), "v_proj": (keys, HIDDEN)}
    shapes = {f"self_attn.{name}": shape for name, shape in {**attention, "o_proj": (HIDDEN, HIDDEN)}.items()}
    for name, shape in {"gate_proj": (WIDE, HIDDEN), "up_proj": (WIDE, HIDDEN), "down_proj": (HIDDEN, WIDE)}.items():
        shapes[f"mlp.{name}"] = shape
    return shapes


def write_state(codec_state: dict[str, Any], backbone: Path) -> dict[str, Any]:
    """The state dict of `checkpoint_epoch0.pth` at small width, with plain base weights."""
    import torch
    from transformers import LlamaForCausalLM

    base = LlamaForCausalLM.from_pretrained(backbone).float().state_dict()
    generator = torch.Generator().manual_seed(5)

    def new(*shape: int, std: float = 0.4) -> Any:
        return torch.randn(shape, generator=generator) * std

    prefix = "llm_model.base_model.model."
    fresh = new(NEW_ROWS, HIDDEN)
    rows = torch.cat([base["model.embed_tokens.weight"], fresh])
    head = torch.cat([base["lm_head.weight"], fresh])  # the same where they are tied
    state = {name: value for name, value in codec_state.items() if name.startswith("enc.")}
    state[f"{prefix}model.embed_tokens.weight"], state[f"{prefix}lm_head.weight"] = rows, head
    for number in range(LAYERS):
        layer = f"{prefix}model.layers.{number}"
        for name, (out, inner) in layer_shapes().items():
            weight = base[f"model.layers.{number}.{name}.weight"]
            state[f"{layer}.{name}.base_layer.weight"] = weight + new(out, inner, std=0.01)  # as 4 bits would change it
            state[f"{layer}.{name}.lora_A.default.weight"] = new(RANK, inner)
            state[f"{layer}.{name}.lora_B.default.weight"] = new(out, RANK, std=0.1)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{layer}.{name}.weight"] = 1 + new(HIDDEN, std=0.2)
    state[f"{prefix}model.norm.weight"] = 1 + new(HIDDEN, std=0.2)
    return state


@pytest.fixture
def make_state(codec_state: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    """make_state(backbone) -> the state dict of a language model that was tuned from it."""
    return lambda backbone: write_state(codec_state, backbone)


@pytest.fixture
def language_state(make_state: Callable[[Path], dict[str, Any]], backbone: Path) -> dict[str, Any]:
    """That of the usual backbone."""
    return make_state(backbone)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    """save(object) -> path of a file that `torch.save` wrote."""
    import torch

    def write(value: Any, name: str = "checkpoint_epoch0.pth") -> Path:
        torch.save(value, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def tuned(language_state: dict[str, Any], save: Callable[[Any], Path]) -> Path:
    """A `checkpoint_epoch0.pth`."""
    return save(language_state)


@pytest.fixture
def make_recording() -> Callable[..., Any]:
    """make_recording(source, seed) -> an invented recording."""
    return invented


def invented(source: str = "ptbxl", seed: int = 0) -> Any:
    """Ten seconds of an invented ECG, another gain and phase in every lead."""
    import numpy as np

    from heartllm.ecg.recording import Recording

    rng = np.random.default_rng(seed)
    time = np.arange(5000) / 500
    phase = (time * rng.uniform(0.9, 1.4)) % 1.0
    beat = np.exp(-(((phase - 0.4) / 0.012) ** 2)) + 0.25 * np.exp(-(((phase - 0.65) / 0.05) ** 2))
    wave = np.sin(2 * np.pi * np.outer(np.linspace(0.2, 0.5, 12), time))
    signal = rng.normal(0, 0.8, (12, 1)) * beat + 0.1 * wave + 0.02 * rng.normal(size=(12, 5000))
    return Recording(signal.astype(np.float32), 500.0, record_id=str(seed), source=source)
