"""Stores written in shards: the bytes of an unsharded run, in any order, and nothing joined that does not belong."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.data.records import Entry
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError, UsageError
from heartllm.frontends import tokenise
from heartllm.frontends.base import FrontEnd
from heartllm.frontends.shards import Shard
from heartllm.frontends.tokenise import StoreWriter, write_store

CODEC = "c" * 64
ENTRIES = [Entry(f"r{i}", f"p{i}", "made", Path(f"r{i}")) for i in range(16)]  # six blocks of three, the last of one


class Small(FrontEnd):
    """Twelve codes from the first samples: shifted and scaled views have others."""

    kind, codes, width, positions = "small", 97, None, 12

    def encode(self, signal: torch.Tensor) -> torch.Tensor:
        return (signal[:, 0, 20:32].abs() * 50).long() % 97


class SmallValues(Small):
    """The same in numbers, two a position."""

    codes, width = None, 2  # type: ignore[assignment]

    def encode(self, signal: torch.Tensor) -> torch.Tensor:
        return signal[:, :2, 20:32].transpose(1, 2)


class Reader:
    """Reads made recordings, all but one, and keeps whom it was asked for; stops where it is told to."""

    def __init__(self, stop_at: str = "") -> None:
        self.stop_at, self.seen = stop_at, list[str]()

    def __call__(self, block: Sequence[Entry]) -> Iterable[tuple[Entry, Recording]]:
        for entry in block:
            if entry.record_id == self.stop_at:
                raise KeyboardInterrupt
            self.seen.append(entry.record_id)
            if entry.record_id != "r4":
                rng = np.random.default_rng(zlib.crc32(entry.record_id.encode()))
                yield entry, Recording(rng.standard_normal((12, 60)).astype(np.float32), 500.0, entry.record_id)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenise, "BLOCK", 3)


def writer(folder: Path, front: FrontEnd | None = None, **changes: Any) -> StoreWriter:
    given = {"codec_hash": CODEC, "entries": ENTRIES, "dataset": "made", "views": 3}
    return StoreWriter(folder, front or Small(), **{**given, **changes})


def encode(folder: Path, *shards: str, **changes: Any) -> None:
    for shard in shards:
        writer(folder, **changes).encode(Reader(), Shard.parse(shard))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without shards writes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenise, "BLOCK", 3)
        write_store(folder, Small(), CODEC, ENTRIES, Reader(), dataset="made", views=3)
    return files(folder)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shards_in_any_order_join_to_the_bytes_of_one_run(tmp_path: Path, whole: dict[str, bytes], count: int) -> None:
    names = [f"{number}/{count}" for number in range(1, count + 1)]
    for turn, order in enumerate(permutations(names) if count < 4 else [names[::-1]]):
        folder = tmp_path / str(turn)
        encode(folder, *order)
        made = writer(folder)
        assert made.finished() is None
        assert len(made.join(made.shards())) == 15
        assert files(folder) == whole
        assert made.finished() is not None


def test_values_are_joined_too(tmp_path: Path) -> None:
    write_store(tmp_path / "whole", SmallValues(), CODEC, ENTRIES, Reader(), dataset="made", views=3)
    encode(tmp_path / "parts", "2/2", "1/2", front=SmallValues())
    made = writer(tmp_path / "parts", SmallValues())
    made.join(made.shards())
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_shards_of_several_machines_are_copied_together(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for number in (1, 2, 3):
        encode(tmp_path / f"machine{number}", f"{number}/3")
        shutil.copytree(tmp_path / f"machine{number}", tmp_path / "all", dirs_exist_ok=True)
    made = writer(tmp_path / "all")
    made.join(made.shards())
    assert files(tmp_path / "all") == whole


def test_an_interrupted_shard_continues(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(KeyboardInterrupt):  # of shard 1/2: blocks 0, 2, 4
        writer(tmp_path).encode(Reader("r7"), Shard.parse("1/2"))
    encode(tmp_path, "2/2")
    with pytest.raises(CheckpointError, match=r"shard-1-of-2: shard 1/2 is not whole: 1 of its 3 blocks.*--shard 1/2"):
        writer(tmp_path).shards()
    done: list[int] = []
    rest = Reader()
    writer(tmp_path).encode(rest, Shard.parse("1/2"), done.append)
    assert rest.seen == ["r6", "r7", "r8", "r12", "r13", "r14"]
    assert done == [3, 6, 9]
    assert [writer(tmp_path).recordings(Shard.parse(name)) for name in ("1/2", "2/2")] == [9, 7]
    made = writer(tmp_path)
    made.join(made.shards())
    assert files(tmp_path) == whole


@pytest.mark.parametrize("text", ["9/8", "0/8", "a/b", "2", "2/", "-1/8", "1/0", "0/0", "1.0/2", "1/2/3", "", "²/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard: .* is no shard\. Write its number"):
        Shard.parse(text)


def refused(folder: Path, message: str, **changes: Any) -> None:
    """Joining is refused in one line, and changes nothing."""
    before = files(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        writer(folder, **changes).shards()
    assert "\n" not in str(caught.value)
    assert files(folder) == before


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "unfinished: holds no shards.*--shard 1/N")
    encode(tmp_path, "1/4", "3/4")
    refused(tmp_path, r"unfinished: shard 2/4, 4/4 missing\. Tokenise with --shard 2/4, or copy")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"codec_hash": "d" * 64}, "'codec' is dddddddddddd, not cccccccccccc"),
        ({"views": 2}, "'views' is 2, not 3"),
        ({"entries": ENTRIES[:-1]}, "'data' is "),
        ({"dataset": "other"}, "'data' is "),
        ({"entries": ENTRIES[::-1]}, "'order' is "),
    ],
)
def test_shards_of_another_codec_or_other_data(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    encode(tmp_path, "1/2")
    encode(tmp_path, "2/2", **changes)
    refused(tmp_path, rf"shard-2-of-2/plan.json: belongs to another unfinished store: {told}.*delete this folder")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"shard-2-of-2/plan.json: belongs to another unfinished store"):
        encode(tmp_path, "2/2")
    assert files(tmp_path) == before


def test_shards_of_another_count_overlap(tmp_path: Path) -> None:
    encode(tmp_path, "1/2")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"unfinished: --shard 2/4: shards of 2 and of 4 overlap\. Use one count"):
        encode(tmp_path, "2/4")
    assert files(tmp_path) == before
    encode(tmp_path / "other", "2/4")
    shutil.copytree(tmp_path / "other", tmp_path, dirs_exist_ok=True)
    refused(tmp_path, "--merge: shards of 2 and of 4 overlap")


def test_shards_that_hold_the_same_blocks_overlap(tmp_path: Path) -> None:
    encode(tmp_path, "1/2")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(unfinished / "shard-1-of-2", unfinished / "shard-2-of-2")
    refused(tmp_path, r"shard-2-of-2/plan.json: .*'shard' is 1/2, not 2/2")
    shutil.rmtree(unfinished / "shard-2-of-2")
    encode(tmp_path, "2/2")
    for path in (unfinished / "shard-1-of-2").glob("000002.*"):
        shutil.copy(path, unfinished / "shard-2-of-2")
    refused(tmp_path, r"shard-2-of-2: holds block 2, which is not of shard 2/2: shards overlap")


def test_runs_with_and_without_shards_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        writer(tmp_path / "one").encode(Reader("r7"))
    with pytest.raises(CheckpointError, match="being written by a run without --shard"):
        encode(tmp_path / "one", "1/2")
    encode(tmp_path / "two", "1/2")
    with pytest.raises(CheckpointError, match=r"being written in shards \(1/2 is there\)\. Give --merge"):
        writer(tmp_path / "two").encode(Reader())
    shutil.copytree(tmp_path / "one", tmp_path / "two", dirs_exist_ok=True)
    refused(tmp_path / "two", "a run without --shard beside shard 1/2: they overlap")


def test_damaged_blocks_are_refused(tmp_path: Path) -> None:
    encode(tmp_path, "1/2", "2/2")
    block = tmp_path / "unfinished/shard-1-of-2/000002.npy"
    good, keys = block.read_bytes(), block.with_suffix(".json").read_text()
    told = r"shard-1-of-2/000002.npy: is damaged, or not this block's\. .*--shard 1/2"
    for bad in (good[:-5], b"", (tmp_path / "unfinished/shard-2-of-2/000005.npy").read_bytes()):
        block.write_bytes(bad)
        refused(tmp_path, told)
    block.write_bytes(good)
    for text in ('["r6", "r7"]', '["r7", "r6", "r8"]', '["r6", "r7", "r0"]', "[[]]", "3", '["r6"', '{"r6": 1}'):
        block.with_suffix(".json").write_text(text)
        refused(tmp_path, told)
    block.with_suffix(".json").write_text(keys)
    (block.parent / "plan.json").write_text("{")
    refused(tmp_path, "shard-1-of-2/plan.json: cannot be read")
    (block.parent / "plan.json").write_text(json.dumps([]))
    refused(tmp_path, "shard-1-of-2/plan.json: belongs to another")


def test_two_merges_at_once(tmp_path: Path) -> None:
    """The second is refused and touches nothing; once the first has ended, it finds the store there."""
    from heartllm.locks import locked

    encode(tmp_path, "1/2", "2/2")
    own = writer(tmp_path)
    blocks = own.shards()
    with (
        locked(own.unfinished / ".lock", where=tmp_path),
        pytest.raises(UsageError, match="another run is writing there"),
    ):
        own.join(blocks)
    assert all(block.with_suffix(".npy").exists() for block in blocks)
    store = own.join(blocks)
    assert own.join(blocks).manifest == store.manifest  # its blocks are gone by then
