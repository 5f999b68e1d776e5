"""Time-LLM's stage 1: nothing to train. Only the leads' deviations over the training set are measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartllm.frontends.time_llm import TimeLLM, TimeLLMConfig
from heartllm.training.loop import LoopConfig
from heartllm.training.tokenizer import Waveforms, lead_deviations


def train_time_llm(
    config: TimeLLMConfig,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    *,
    reports: Sequence[str | None] | None = None,
    text: Any = None,
    batch: int = 0,
) -> tuple[TimeLLM, list[dict[str, Any]]]:
    """The front-end with its lead scales, and an empty log; only `config` and `train` are looked at."""
    front_end = TimeLLM(config)
    front_end.lead_scale.copy_(lead_deviations(train))
    return front_end.eval(), []
