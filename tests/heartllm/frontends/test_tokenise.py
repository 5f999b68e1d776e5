"""Token stores: written once, continued after an interruption, refused where they do not belong."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heartllm.codec.codec import CodecConfig
from heartllm.codec.store import FILL, TokenStore, fingerprint
from heartllm.data.dataset import open_dataset
from heartllm.data.dataset_check import BadRecords, read_all
from heartllm.data.records import Entry
from heartllm.data.synthetic import write_site
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm.frontends import tokenise
from heartllm.frontends.base import FrontEnd
from heartllm.frontends.continuous import Continuous, ContinuousConfig
from heartllm.frontends.fsq import FSQCodes
from heartllm.frontends.tokenise import views_of, write_store

CODEC = "c" * 64


def entries(count: int) -> list[Entry]:
    return [Entry(f"r{i}", f"p{i}", "made", Path(f"r{i}")) for i in range(count)]


def recording(entry: Entry) -> Recording:
    rng = np.random.default_rng(zlib.crc32(entry.record_id.encode()))
    return Recording(rng.standard_normal((12, 5000)).astype(np.float32), 500.0, entry.record_id)


class Reader:
    """Reads made recordings, counts them, leaves some out, and is interrupted at one."""

    def __init__(self, interrupt_at: str = "", unreadable: tuple[str, ...] = ()) -> None:
        self.interrupt_at, self.unreadable, self.seen = interrupt_at, unreadable, list[str]()

    def __call__(self, block: Sequence[Entry]) -> Iterable[tuple[Entry, Recording]]:
        for entry in block:
            if entry.record_id == self.interrupt_at:
                raise KeyboardInterrupt
            self.seen.append(entry.record_id)
            if entry.record_id not in self.unreadable:
                yield entry, recording(entry)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenise, "BLOCK", 3)


@pytest.fixture(scope="module")
def codec() -> FSQCodes:
    torch.manual_seed(0)
    codec = FSQCodes(CodecConfig(decoder_width=8)).eval()
    with torch.no_grad():
        codec.encoder.to_latent.weight.mul_(60)
    return codec


def write(
    folder: Path, codec: FrontEnd, read: Reader, count: int = 8, *, codec_hash: str = CODEC, views: int = 1
) -> TokenStore:
    return write_store(folder, codec, codec_hash, entries(count), read, dataset="made", views=views)


def test_store_holds_each_recordings_codes(tmp_path: Path, codec: FSQCodes) -> None:
    done: list[int] = []
    store = write_store(tmp_path, codec, CODEC, entries(5), Reader(), dataset="made", progress=done.append)
    assert done == [3, 5]
    assert len(store) == 5
    assert store.codes.shape == (5, 1, 313)
    assert store.codes.dtype == np.uint16
    assert isinstance(store.codes, np.memmap)
    assert list(store.keys()) == [f"r{i}" for i in range(5)]
    expected = codec.encode(torch.from_numpy(recording(entries(4)[3]).signal)[None])[0]
    assert store.of("r3").tolist() == expected.tolist()
    assert len(np.unique(store.codes)) > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.npy", "manifest.json"]


def test_interrupted_run_continues_and_ends_the_same(tmp_path: Path, codec: FSQCodes) -> None:
    whole = write(tmp_path / "whole", codec, Reader(), views=2)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "parts", codec, Reader("r7"), views=2)
    with pytest.raises(CheckpointError, match="not a whole token store"):
        TokenStore.open(tmp_path / "parts")
    rest = Reader()
    store = write(tmp_path / "parts", codec, rest, views=2)
    assert rest.seen == ["r6", "r7"]  # two blocks of three were whole
    assert np.array_equal(store.codes, whole.codes)
    assert store.manifest == whole.manifest


def test_tokenising_twice_reads_nothing_the_second_time(tmp_path: Path, codec: FSQCodes) -> None:
    first = write(tmp_path, codec, Reader())
    stamp = (tmp_path / "codes.npy").stat().st_mtime_ns
    again = Reader()
    second = write(tmp_path, codec, again)
    assert again.seen == []
    assert (tmp_path / "codes.npy").stat().st_mtime_ns == stamp
    assert np.array_equal(first.codes, second.codes)


def test_unreadable_recordings_are_left_out_and_counted(tmp_path: Path, codec: FSQCodes) -> None:
    store = write(tmp_path, codec, Reader(unreadable=("r0", "r1", "r2", "r5")))  # r0 to r2: a block with none left
    assert list(store.keys()) == ["r3", "r4", "r6", "r7"]
    assert store.manifest["left_out"] == 4
    with pytest.raises(DataError, match="'r5'"):
        store.of("r5")


@given(st.sets(st.integers(0, 9)), st.integers(1, 4))
def test_blocks_get_what_was_read_of_them(unread: set[int], size: int) -> None:
    all_of_them = entries(10)
    blocks = [all_of_them[first : first + size] for first in range(0, 10, size)]
    pairs = [(entry, recording(entry)) for number, entry in enumerate(all_of_them) if number not in unread]
    found = list(tokenise.in_blocks(iter(pairs), blocks))
    assert [[entry for entry, _ in part] for part in found] == [
        [entry for entry in block if int(entry.record_id[1:]) not in unread] for block in blocks
    ]


def test_processes_that_read_ahead_change_no_byte(tmp_path: Path, codec: FSQCodes) -> None:
    write_site("a", tmp_path, recordings=10, seed=1, workers=1)
    dataset = open_dataset("synthetic-a", tmp_path)
    chosen = dataset.entries()
    chosen[4].path.with_suffix(".dat").unlink()
    stores = {}
    for workers in (0, 2):
        read = partial(read_all, dataset, bad=BadRecords(allowed=1.0), workers=workers)
        store = write_store(tmp_path / str(workers), codec, CODEC, chosen, read, dataset="made")
        stores[workers] = (store.path / "codes.npy").read_bytes(), list(store.keys())
    assert stores[0] == stores[2]
    assert len(stores[0][1]) == 9


def test_a_dataset_of_which_nothing_can_be_read(tmp_path: Path, codec: FSQCodes) -> None:
    with pytest.raises(DataError, match="none of its 2 recordings"):
        write(tmp_path, codec, Reader(unreadable=("r0", "r1")), 2)


def test_refuses_another_codec_or_other_data(tmp_path: Path, codec: FSQCodes) -> None:
    write(tmp_path, codec, Reader(), 3)
    with pytest.raises(CheckpointError, match="was made by front-end cccc"):
        write(tmp_path, codec, Reader(), 3, codec_hash="d" * 64)
    with pytest.raises(CheckpointError, match="other recordings"):
        write(tmp_path, codec, Reader(), 4)
    with pytest.raises(CheckpointError, match="other recordings"):
        write(tmp_path, codec, Reader(), 3, views=2)
    assert len(TokenStore.open(tmp_path, CODEC)) == 3


@pytest.mark.parametrize(("codec_hash", "count"), [("d" * 64, 8), (CODEC, 7)])
def test_refuses_to_continue_another_unfinished_store(
    tmp_path: Path, codec: FSQCodes, codec_hash: str, count: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, codec, Reader("r4"))
    with pytest.raises(CheckpointError, match="unfinished store"):
        write(tmp_path, codec, Reader(), count, codec_hash=codec_hash)


def test_refuses_to_continue_in_another_order(tmp_path: Path, codec: FSQCodes) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, codec, Reader("r4"))
    with pytest.raises(CheckpointError, match="unfinished store"):
        write_store(tmp_path, codec, CODEC, entries(8)[::-1], Reader(), dataset="made")


def test_refuses_codes_that_16_bits_cannot_hold(tmp_path: Path) -> None:
    large = FSQCodes(CodecConfig(levels=(9, 9, 9, 9, 11), decoder_width=8))
    with pytest.raises(UsageError, match="72,171 codes"):
        write(tmp_path, large, Reader())


def test_altered_manifests_are_refused(tmp_path: Path, codec: FSQCodes) -> None:
    write(tmp_path, codec, Reader(), 3)
    path = tmp_path / "manifest.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    altered = {
        "a recording less": {**good, "keys": good["keys"][:-1]},
        "other shape": {**good, "shape": [3, 1, 312]},
        "other schema": {**good, "schema": 99},
        "no keys": {name: value for name, value in good.items() if name != "keys"},
        "no codec": {name: value for name, value in good.items() if name != "codec"},
        "no mapping": [good],
    }
    for what, manifest in altered.items():
        path.write_text(json.dumps(manifest), encoding="utf-8")
        with pytest.raises(CheckpointError, match="heartllm tokenize"):
            pytest.fail(f"{what}: opened {TokenStore.open(tmp_path, CODEC)}")
    path.write_text(json.dumps(good)[:-5], encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a whole token store"):
        TokenStore.open(tmp_path)
    path.write_text(json.dumps(good), encoding="utf-8")
    (tmp_path / "codes.npy").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a whole token store"):
        TokenStore.open(tmp_path)


def test_views_are_small_shifts_and_gains() -> None:
    signal = torch.randn(2, 12, 400)
    views = views_of(signal, 6, seed=4)
    assert views.shape == (6, 2, 12, 400)
    assert torch.equal(views[0], signal)
    assert torch.equal(views, views_of(signal, 6, seed=4))
    assert not torch.equal(views[1], views_of(signal, 6, seed=5)[1])
    drawn = set()
    for view in views[1:]:
        for moved, original in zip(view, signal, strict=True):  # each recording has a shift and a gain of its own
            fits = []
            for shift in range(1, 16):
                gain = float(moved[0, 50] / original[0, 50 - shift])
                fits.append((float((moved[:, shift:] - gain * original[:, :-shift]).abs().max()), shift, gain))
            error, shift, gain = min(fits)
            assert error < 1e-4
            assert abs(gain - 1) <= 0.1 + 1e-4
            front = gain * original[:, :1].expand(-1, shift)
            torch.testing.assert_close(moved[:, :shift], front, rtol=1e-4, atol=1e-5)
            drawn.add((shift, round(gain, 4)))
    assert len(drawn) == 10


def test_views_give_other_codes_of_the_same_recording(tmp_path: Path, codec: FSQCodes) -> None:
    store = write(tmp_path, codec, Reader(), 2, views=3)
    assert store.codes.shape == (2, 3, 313)
    for other in (1, 2):
        assert not np.array_equal(store.of("r1"), store.of("r1", other))


def test_fingerprint_keeps_parts_apart() -> None:
    assert fingerprint(["a", "bc"]) != fingerprint(["ab", "c"])
    assert fingerprint(["a", 1]) == fingerprint(["a", "1"])


def test_values_are_kept_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(1)
    front = Continuous(ContinuousConfig(CodecConfig(decoder_width=8), width=5)).eval()
    store = write(tmp_path, front, Reader(unreadable=("r0", "r1", "r2")), 5, views=2)
    assert store.codes.shape == (2, 2, 313, 5)
    assert store.codes.dtype == np.float16
    assert isinstance(store.codes, np.memmap)
    expected = front.encode(torch.from_numpy(recording(entries(5)[3]).signal)[None])[0]
    np.testing.assert_allclose(store.of("r3"), expected, rtol=2e-3, atol=1e-3)
    assert not np.array_equal(store.codes[:, 0], store.codes[:, 1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "values.npy"]
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "holds": "codes"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a whole token store"):
        TokenStore.open(tmp_path)
    with (tmp_path / "codes.npy").open("wb") as file:
        np.save(file, np.zeros(manifest["shape"], np.float16))
    with pytest.raises(CheckpointError, match="disagree"):
        TokenStore.open(tmp_path)


class Ragged(FrontEnd):
    """As many codes as the recording's number, and one more."""

    kind = "ragged"
    codes, width, positions = 7, None, 12

    def encode(self, signal: torch.Tensor) -> torch.Tensor:
        lengths = [int(value) + 1 for value in signal[:, 0, 0]]
        return torch.tensor([[6] * length + [-1] * (max(lengths) - length) for length in lengths])


def test_ecgs_with_fewer_codes_are_filled_up(tmp_path: Path) -> None:
    def read(block: Sequence[Entry]) -> Iterable[tuple[Entry, Recording]]:
        for entry in block:
            yield entry, Recording(np.full((12, 5000), int(entry.record_id[1:]), np.float32), 500.0)

    store = write_store(tmp_path, Ragged(), CODEC, entries(5), read, dataset="made")
    assert store.codes.shape == (5, 1, 12)
    assert store.of("r3").tolist() == [6] * 4
    assert store.codes[3, 0].tolist() == [6] * 4 + [FILL] * 8


def test_values_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    front = Continuous(ContinuousConfig(CodecConfig(decoder_width=8), width=5)).eval()
    with torch.no_grad():
        front.codec.encoder.to_latent.bias.fill_(1e6)
    with pytest.raises(DataError, match="do not fit into 16 bits"):
        write(tmp_path, front, Reader(), 2)


def test_stores_of_older_versions_open(tmp_path: Path, codec: FSQCodes) -> None:
    store = write(tmp_path, codec, Reader(), 3)
    older = {name: value for name, value in store.manifest.items() if name not in ("holds", "sha256")}
    (tmp_path / "manifest.json").write_text(json.dumps(older), encoding="utf-8")
    assert np.array_equal(TokenStore.open(tmp_path, CODEC).codes, store.codes)
