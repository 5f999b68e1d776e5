"""What the tests of language, training and checkpoints share: a small vocabulary, small models, small backbone folders.

Imports of the model stack stay inside the fixtures, so that a base install can collect what does not need it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
    collect_ignore = [
        "test_checkpoint.py",
        "test_export.py",
        "test_recipe.py",
        "test_responder.py",
        "test_row_recipes.py",
        "test_spelling.py",
    ]

LEVELS = (3, 3, 2, 2)  # 36 codes
CORPUS = [
    "Age: 54 years. Sex: female. Weight: 59 kg. Device: CS-12.\n",
    "Question: Does this ECG show symptoms of sinus bradycardia? Answer: yes",
    "Question: Which noise does this ECG show, baseline drift or static noise? Answer: baseline drift; static noise",
    "Question: What is the heart axis? Answer: left axis deviation",
    "Report: sinus rhythm, normal ECG. atrial fibrillation. left bundle branch block.",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE text tokenizer of 320 rows."""
    from heartllm.language.vocabulary import train_text_tokenizer

    return train_text_tokenizer(CORPUS * 3, 320)


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Any) -> Any:
    from heartllm.language.vocabulary import Vocabulary

    return Vocabulary(tokenizer, len(tokenizer), 36)


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """A two-layer language model of width 32."""
    from heartllm.language.model import LanguageConfig, LoraSettings, TinyConfig

    tiny = TinyConfig(hidden=32, layers=2, heads=2, feedforward=48, vocabulary=320)
    return LanguageConfig(tiny=tiny, lora=LoraSettings(rank=4, alpha=8))


@pytest.fixture
def make_model(vocabulary: Any, tiny_config: Any) -> Callable[..., Any]:
    """make_model(**changes of LanguageConfig) -> a model whose weights are large enough for its answers to vary."""
    from dataclasses import replace

    from heartllm.language.model import ECGLanguageModel, build_tiny, choose_trained

    def make(seed: int = 0, **changes: Any) -> Any:
        config = replace(tiny_config, **changes)
        model = ECGLanguageModel(build_tiny(config.tiny, vocabulary, seed), vocabulary, LEVELS, config)
        shake(model, seed)
        choose_trained(model)
        return model

    return make


def shake(model: Any, seed: int = 0) -> None:
    """Redraws the matrices of a model wider than an initialisation would."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.4)


@pytest.fixture
def write_checkpoint() -> Callable[..., Path]:
    """write_checkpoint(folder, tokenizer, language, rows, **changes of CheckpointConfig) -> the folder."""
    return _write_checkpoint


def _write_checkpoint(folder: Path, tokenizer: Any, language: Any, rows: int, **changes: Any) -> Path:
    """A finished checkpoint of a model that nobody trained; LoRA's factors are drawn so that they matter."""
    import torch

    from heartllm.checkpoint import CheckpointConfig, new_language, save_frontend, save_language, write_manifest
    from heartllm.codec.codec import Codec, CodecConfig

    codec = CodecConfig(levels=LEVELS, decoder_width=16)
    config = CheckpointConfig(codec, language, rows, **changes)
    model = new_language(config, tokenizer)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and (parameter.requires_grad or language.backbone == "tiny"):
                parameter.normal_(std=0.2 if "lora" in name else 0.4)
        for table in (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings()):
            table.weight[len(tokenizer) :] = 0.0  # rows that the tokenizer does not use are never said
        front = Codec(codec)
        front.encoder.to_latent.weight.mul_(60)  # for its codes to vary
    save_frontend(front, folder)
    save_language(folder, model, config, {})
    write_manifest(folder)
    return folder


# Hugging Face's name of a family -> what its configuration says beside the shape.
_FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": False},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "Mistral": {"tie_word_embeddings": False},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8},
    "Gemma3": {"head_dim": 8},
    "Granite": {"logits_scaling": 8.0},
}


def _backbone(kind: str, rows: int, **changes: Any) -> Any:
    import transformers as hf

    shape: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    if kind == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=4, n_positions=512))
    if kind == "gpt_neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**shape, tie_word_embeddings=False))
    family, _, tied = kind.partition("-")
    family = family.capitalize()
    config = getattr(hf, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config", None)
    if config is None:
        pytest.skip(f"this transformers has no {family}")
    settings = _FAMILIES[family] | ({"tie_word_embeddings": bool(tied)} if family == "Qwen2" else {}) | changes
    return getattr(hf, f"{family}ForCausalLM")(config(**shape, num_key_value_heads=2, **settings))


@pytest.fixture
def backbone_folder(tokenizer: Any, tmp_path: Path) -> Callable[..., Path]:
    """backbone_folder(kind, **changes of its configuration) -> a folder as `save_pretrained` writes it, with five more
    rows than its tokenizer uses."""

    def make(kind: str, **changes: Any) -> Path:
        import torch
        import transformers

        if int(transformers.__version__.split(".")[0]) < 5 and kind == "gpt2":
            pytest.skip("gpt2 takes no block mask before transformers 5")
        torch.manual_seed(1)
        backbone = _backbone(kind, len(tokenizer) + 5, **changes)
        shake(backbone)
        folder = tmp_path / f"backbone-{kind}"
        backbone.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make
