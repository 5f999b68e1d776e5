"""ECG-Byte's stage 1: the amplitudes at which it clips, and its byte-pair merges, from the training set."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from heartllm.errors import DataError
from heartllm.frontends.ecg_byte import EMPTY, ECGByte, ECGByteConfig
from heartllm.training.loop import LoopConfig
from heartllm.training.tokenizer import MICROVOLT, Waveforms

MOST = 2000  # recordings the merges are learnt on
SAMPLED = 400  # recordings the percentiles are taken from


def train_ecg_byte(
    config: ECGByteConfig,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    *,
    reports: Sequence[str | None] | None = None,
    text: Any = None,
    batch: int = 0,
) -> tuple[ECGByte, list[dict[str, Any]]]:
    """Learns limits and merges on an even sample of `train`; of `loop` nothing is used, since nothing is optimised.

    Returns:
        The tokenizer, and a log of one line: merges learnt; on `valid`, letters a token, tokens a recording, the share
        of recordings that the budget cuts, and the round trip's error.

    Raises:
        DataError: if the training set is flat, so that its percentiles fall together.
    """
    started = time.perf_counter()
    front_end = ECGByte(config).eval()
    some = train[_even(len(train), SAMPLED)].astype(np.float32) / MICROVOLT
    low, high = np.percentile(some, [config.low, config.high])
    if not high > low:
        raise DataError(
            "the training recordings are flat between the percentiles at which amplitude is clipped",
            where="low, high",
            remedy="Widen the percentiles, or check the data.",
        )
    front_end.limits.copy_(torch.tensor([low, high]))

    def strings() -> Iterator[str]:
        for row in _even(len(train), MOST):
            letters = front_end.letters(train[row].astype(np.float32) / MICROVOLT)
            yield bytes(letters + ord("a")).decode()

    pairs = learn_merges(strings(), config.letters, config.merges)
    front_end.merges[: len(pairs)] = torch.from_numpy(pairs)
    entry: dict[str, Any] = {"step": 0, "seconds": round(time.perf_counter() - started, 1)}
    entry |= {f"valid_{name}": round(value, 5) for name, value in byte_figures(front_end, valid).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    return front_end, [entry]


def learn_merges(strings: Iterator[str], letters: int, merges: int) -> npt.NDArray[np.int64]:
    """Byte-pair merges, (at most `merges`, 2) ids in the order of learning; the strings are never split at anything."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    alphabet = [chr(ord("a") + i) for i in range(letters)]
    trainer = BpeTrainer(vocab_size=letters + merges, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(strings, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    ids = {letter: i for i, letter in enumerate(alphabet)}
    pairs = np.full((min(len(learnt), merges), 2), EMPTY, np.int64)
    for row, merge in enumerate(learnt[:merges]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        pairs[row] = ids[left], ids[right]
        ids.setdefault(left + right, len(ids))
    return pairs


def byte_figures(front_end: ECGByte, waveforms: Waveforms, limit: int = 160) -> dict[str, float]:
    """Letters a token, tokens a recording, share cut by the budget, merges, and the round trip's RMSE in mV."""
    letters, tokens, cut, errors = 0, list[int](), 0, []
    for row in _even(len(waveforms), limit):
        signal = waveforms[row].astype(np.float32) / MICROVOLT
        written = front_end.letters(signal)
        ids = front_end.tokens(written)
        letters, cut = letters + len(written), cut + (len(ids) > front_end.positions)
        tokens.append(len(ids))
        back = front_end.decode(torch.tensor([ids[: front_end.positions]]), signal.shape[-1])[0].numpy()
        errors.append(float(np.sqrt(np.mean((back - signal) ** 2))))
    return {
        "merges": float((front_end.merges[:, 0] != EMPTY).sum()),
        "letters_a_token": letters / max(1, sum(tokens)),
        "tokens": float(np.mean(tokens)),
        "tokens_p90": float(np.percentile(tokens, 90)),
        "cut": cut / max(1, len(tokens)),
        "rmse_mv": float(np.mean(errors)),
    }


def _even(count: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
