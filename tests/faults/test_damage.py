"""Files of ours that were cut off or have a wrong bit: refused with their place and a remedy, or without effect.

Of checkpoints (tests/heartllm/test_checkpoint.py), frozen runs (tests/heartllm_eval/test_frozen.py) and WFDB records
(tests/heartllm/ecg/test_wfdb_files.py) their own tests say it.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from torch import Tensor, nn

from heartllm.codec.codec import CodecConfig
from heartllm.codec.store import TokenStore
from heartllm.data.records import Entry
from heartllm.data.synthetic import write_site, writing
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError, HeartLLMError
from heartllm.frontends import tokenise
from heartllm.frontends.fsq import FSQCodes
from heartllm.frontends.tokenise import StoreWriter
from heartllm.training.loop import LoopConfig, fit
from heartllm.training.processes import Part

BITS = 60


def damaged(content: bytes, every: int = 1) -> list[bytes]:
    """The content cut off at some places, and with single bits turned over at others."""
    generator = random.Random(0)
    found = [content[:length] for length in (0, 1, len(content) // 2, len(content) - 1)]
    for place in generator.sample(range(len(content)), min(BITS, len(content))):
        turned = bytearray(content)
        turned[place] ^= 1 << generator.randrange(8)
        found.append(bytes(turned))
    return found[::every]


def refusals(path: Path, read: Callable[[], Any], told: str) -> int:
    """Damages the file in every way and reads; what is read is the same as before. How often it was refused."""
    content, whole, errors = path.read_bytes(), read(), list[HeartLLMError]()
    for wrong in damaged(content):
        path.write_bytes(wrong)
        try:
            assert read() == whole
        except HeartLLMError as error:
            errors.append(error)
    path.write_bytes(content)
    assert read() == whole
    assert all(told in str(error) and error.remedy for error in errors)
    return len(errors)


# ---- token stores and their blocks ---------------------------------------------------------------------------------

CODEC = "c" * 64
ENTRIES = [Entry(f"r{number}", "somebody", "d", Path(f"r{number}")) for number in range(6)]


@pytest.fixture(scope="module")
def front() -> FSQCodes:
    torch.manual_seed(0)
    return FSQCodes(CodecConfig(levels=(3, 3, 2, 2), decoder_width=8)).eval()


def read(asked: Any) -> Iterator[tuple[Entry, Recording]]:
    for entry in asked:
        rng = np.random.default_rng(int(entry.record_id[1:]))
        yield entry, Recording(rng.normal(size=(12, 5000)).astype(np.float32), 500.0)


def store_of(folder: Path) -> list[Any]:
    store = TokenStore.open(folder, CODEC)
    return [list(store.keys()), store.manifest["data"], store.manifest["dataset"], np.asarray(store.codes).tolist()]


@pytest.mark.parametrize("name", ["codes.npy", "manifest.json"])
def test_a_token_store(tmp_path: Path, front: FSQCodes, name: str) -> None:
    writer = StoreWriter(tmp_path, front, CODEC, ENTRIES, "d")
    writer.join(writer.encode(read))
    assert refusals(tmp_path / name, lambda: store_of(tmp_path), str(tmp_path)) >= BITS


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_block_is_encoded_again(
    tmp_path: Path, front: FSQCodes, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(tokenise, "BLOCK", 2)
    writer = StoreWriter(tmp_path / "store", front, CODEC, ENTRIES, "d")
    path = writer.encode(read)[1].with_suffix(suffix)
    content, codes = path.read_bytes(), np.load(path.with_suffix(".npy"))
    for wrong in damaged(content, every=8):
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError, match="is damaged"):
            writer.join([path.with_suffix("")])
        writer.encode(read)
        assert np.array_equal(np.load(path.with_suffix(".npy")), codes)
        assert path.read_bytes() == content


# ---- synthetic sites -------------------------------------------------------------------------------------------------


def test_a_damaged_chunk_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 2)
    whole = write_site("a", tmp_path / "whole", recordings=4, seed=1, workers=1)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            write_site("a", tmp_path / "begun", recordings=4, seed=1, workers=1)
    part = Path("synthetic-a/parts/000000002.json")
    for number, wrong in enumerate(damaged((tmp_path / "begun" / part).read_bytes(), every=16)):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "begun", root)
        (root / part).write_bytes(wrong)
        folder = write_site("a", root, recordings=4, seed=1, workers=1)
        assert (folder / "ptbxl_database.csv").read_bytes() == (whole / "ptbxl_database.csv").read_bytes()
        assert not (folder / "parts").exists()


def test_a_kill_before_the_plan_is_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "synthetic-a" / "parts").mkdir(parents=True)
    (tmp_path / "synthetic-a" / "parts" / ".plan.json.part").write_text("{")
    folder = write_site("a", tmp_path, recordings=1, seed=1, workers=1)
    assert json.loads((folder / "complete.json").read_text())["recordings"] == 1


# ---- the state of a training -----------------------------------------------------------------------------------------


def train(folder: Path, steps: int = 6, stop: int | None = None) -> list[float]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)

    def loss(trained: nn.Module, step: int, part: Part) -> dict[str, Tensor]:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": ((trained(x) - x[:, :3]) ** 2).mean()}

    config = LoopConfig(steps=steps, learning_rate=1e-2, warmup=1, evaluate_every=2)
    log = fit(model, loss=loss, config=config, folder=folder, fingerprint="a run")
    return [*(line["loss"] for line in log), *torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()]


@pytest.mark.parametrize("name", ["state.pt", "log.jsonl"])
def test_the_state_of_a_training(tmp_path: Path, name: str) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "begun", stop=4)

    def go_on() -> list[float]:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "begun", tmp_path / "run")
        return train(tmp_path / "run")

    refused = refusals(tmp_path / "begun" / name, go_on, str(tmp_path / "run"))
    assert go_on() == whole
    assert refused > BITS // 2 if name == "state.pt" else refused == 0
