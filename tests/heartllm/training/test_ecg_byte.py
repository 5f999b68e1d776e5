"""ECG-Byte's training: limits and merges come from the training set; and Time-LLM's, which trains nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from heartllm.data.synthetic.simulation import simulate
from heartllm.errors import DataError
from heartllm.frontends.ecg_byte import EMPTY, ECGByte, ECGByteConfig
from heartllm.frontends.time_llm import TimeLLMConfig
from heartllm.training.ecg_byte import learn_merges, train_ecg_byte
from heartllm.training.loop import LoopConfig
from heartllm.training.time_llm import train_time_llm
from heartllm.training.tokenizer import Waveforms, lead_deviations

LOOP = LoopConfig(steps=1)


@pytest.fixture(scope="module")
def waveforms() -> Waveforms:
    signals = np.stack([simulate(5, index)[0].signal for index in range(6)])
    return np.clip(signals * 1000, -32768, 32767).round().astype(np.int16)


def test_limits_and_merges(waveforms: Waveforms, tmp_path: Path) -> None:
    config = ECGByteConfig(merges=120)
    front_end, log = train_ecg_byte(config, LOOP, waveforms, waveforms[:2], tmp_path)
    assert front_end.limits.tolist() == pytest.approx(np.percentile(waveforms / 1000, [1, 99]).tolist(), abs=1e-3)
    assert log[0]["valid_merges"] == 120
    assert log[0]["valid_letters_a_token"] > 1.5
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 1
    again, _ = train_ecg_byte(config, LOOP, waveforms, waveforms[:2], tmp_path)
    assert torch.equal(front_end.merges, again.merges)
    copy = ECGByte(config)
    copy.load_state_dict(front_end.state_dict())
    signal = torch.from_numpy(waveforms[:1].astype(np.float32) / 1000)
    assert torch.equal(copy.encode(signal), front_end.encode(signal))


def test_few_merges_leave_the_table_open() -> None:
    pairs = learn_merges(iter(["aabb"]), 2, 50)
    assert 0 < len(pairs) < 50
    assert (pairs != EMPTY).all()


def test_flat_recordings_are_refused(tmp_path: Path) -> None:
    flat = np.zeros((2, 12, 5000), np.int16)
    with pytest.raises(DataError, match="flat"):
        train_ecg_byte(ECGByteConfig(merges=3), LOOP, flat, flat, tmp_path)


def test_time_llm_only_measures_the_leads(waveforms: Waveforms, tmp_path: Path) -> None:
    front_end, log = train_time_llm(TimeLLMConfig(normalise="fixed"), LOOP, waveforms, waveforms[:2], tmp_path)
    torch.testing.assert_close(front_end.lead_scale, lead_deviations(waveforms))
    assert log == []
    assert not front_end.training
