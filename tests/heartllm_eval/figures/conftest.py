"""Small untrained checkpoints at work, with codes and with soft tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

WORDS = [
    "sinus rhythm normal ecg",
    "atrial fibrillation",
    "left axis deviation",
    "inferior myocardial infarction",
    "pvc",
]


@pytest.fixture(scope="session")
def make_responder() -> Callable[..., Any]:
    """`make_responder(kind)`: an untrained one with the front-end "fsq" or "continuous"."""
    pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
    pytest.importorskip("transformers", reason="needs the model stack: pip install 'heartllm[model]'")
    from heartllm.checkpoint import CheckpointConfig, new_language
    from heartllm.codec.codec import CodecConfig
    from heartllm.frontends.continuous import Continuous, ContinuousConfig
    from heartllm.frontends.fsq import FSQCodes
    from heartllm.language.generation import Generator
    from heartllm.language.model import LanguageConfig, TinyConfig
    from heartllm.language.vocabulary import train_text_tokenizer
    from heartllm.responder import Responder

    tokenizer = train_text_tokenizer(WORDS * 3, 320)
    tiny = TinyConfig(hidden=32, layers=2, heads=2, feedforward=32, vocabulary=320, local_layers=1)

    def make(kind: str = "fsq") -> Any:
        codec = CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)
        front = FSQCodes(codec) if kind == "fsq" else Continuous(ContinuousConfig(codec, width=6))
        config = CheckpointConfig(
            codec if kind == "fsq" else None, LanguageConfig(tiny=tiny), text_rows=320, frontend=kind
        )
        model = new_language(config, tokenizer, 0, front=front)
        return Responder(front.eval(), Generator(model, config.layout), config, "fingerprint", "codec")

    return make
