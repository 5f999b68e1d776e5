"""Writing a token store: read each recording once, encode it, keep 313 small integers (or what its front-end gives)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartllm.codec.networks import STRIDE
from heartllm.codec.store import FILL, SCHEMA, TYPES, TokenStore, fingerprint
from heartllm.data.records import Entry
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm.frontends.base import FrontEnd
from heartllm.frontends.shards import Shard, open_part, read_block, whole_shards, write_block
from heartllm.locks import locked
from heartllm.manifests import seal
from heartllm.writing import remove_folder, reserve_array, sync, write_whole

Read = Callable[[Sequence[Entry]], Iterable[tuple[Entry, Recording]]]
MOST_CODES = FILL
BLOCK = 64  # recordings between two saves
GAIN = 0.1  # largest relative change of gain in a view


def views_of(signal: Tensor, views: int, seed: int) -> Tensor:
    """(B, 12, T) mV -> (views, B, 12, T): the signal, then copies shifted by less than a code, at slightly other gains.

    Shift and gain are drawn anew for every recording. The shift repeats the first sample at the front: at most 30 ms of
    flat line.
    """
    rng = np.random.default_rng(seed)
    made = [signal]
    for _ in range(views - 1):
        shift = torch.from_numpy(rng.integers(1, STRIDE, len(signal)))
        gain = torch.from_numpy(rng.uniform(1 - GAIN, 1 + GAIN, len(signal))).to(signal)
        source = (torch.arange(signal.shape[-1]) - shift[:, None]).clamp_min(0)  # (B, T)
        made.append(signal.gather(-1, source[:, None].expand_as(signal)) * gain[:, None, None])
    return torch.stack(made)


@dataclass(frozen=True)
class StoreWriter:
    """A token store in the making: blocks of recordings, encoded by one run or by several, then joined.

    Attributes:
        folder: of the store; its blocks lie in `unfinished` inside it until they are joined.
        front: the frozen front-end, on the device that it is to run on.
        codec_hash: its hash.
        views: tokenisations of each recording, see `views_of`.
    """

    folder: Path
    front: FrontEnd
    codec_hash: str
    entries: Sequence[Entry]
    dataset: str
    views: int = 1

    def __post_init__(self) -> None:
        if self.front.codes is not None and self.front.codes > MOST_CODES:
            raise UsageError(
                f"the front-end has {self.front.codes:,} codes; a token store holds at most {MOST_CODES:,}",
                where="levels",
                remedy="Use fewer or smaller levels, or fewer merges.",
            )

    @property
    def unfinished(self) -> Path:
        return self.folder / "unfinished"

    @cached_property
    def data(self) -> str:
        """What the store holds, in whatever order."""
        return fingerprint([self.dataset, self.views, *sorted(entry.record_id for entry in self.entries)])

    @cached_property
    def blocks(self) -> list[Sequence[Entry]]:
        return [self.entries[first : first + BLOCK] for first in range(0, len(self.entries), BLOCK)]

    def recordings(self, shard: Shard | None = None) -> int:
        """How many recordings there are, or a shard has."""
        chosen = range(len(self.blocks)) if shard is None else shard.blocks(len(self.blocks))
        return sum(len(self.blocks[number]) for number in chosen)

    def plan(self, *, sharded: bool) -> dict[str, object]:
        """What a block belongs to. Blocks are counted in an order: in another one, or of another size, none fits."""
        order = fingerprint([BLOCK, *(entry.record_id for entry in self.entries)])
        plan: dict[str, object] = {"codec": self.codec_hash, "data": self.data, "order": order}
        return {**plan, "views": self.views} if sharded else plan

    def finished(self) -> TokenStore | None:
        """The store, if it is there already.

        Raises:
            CheckpointError: if the folder holds the tokens of other data or another front-end.
        """
        if not (self.folder / "manifest.json").exists():
            return None
        store = TokenStore.open(self.folder, self.codec_hash)
        if store.manifest["data"] != self.data:
            raise CheckpointError(
                "holds the tokens of other recordings", where=self.folder, remedy="Give another --out."
            )
        remove_folder(self.unfinished)  # which a kill may have left
        return store

    def encode(
        self, read: Read, shard: Shard | None = None, progress: Callable[[int], object] = lambda done: None
    ) -> list[Path]:
        """Encodes what is open of all blocks, or of a shard's; returns their paths, without a suffix.

        Args:
            read: entries -> (entry, recording) pairs; recordings that cannot be read are simply not among them.
            progress: is told how many recordings are done.

        Raises:
            CheckpointError: if another store is being written there, or this one in other shards.
            UsageError: if another process is writing the same part.
        """
        plan = self.plan(sharded=shard is not None)
        part = open_part(self.unfinished, plan if shard is None else {**plan, "shard": str(shard)}, shard)
        paths, done = [], 0
        with locked(part / ".lock", where=self.folder):
            numbers = range(len(self.blocks)) if shard is None else shard.blocks(len(self.blocks))
            missing = {number for number in numbers if self._block(part / f"{number:06d}") is None}
            # One pass over all that is to be read, so that whoever reads ahead need not stop at the end of a block.
            open_blocks = [self.blocks[number] for number in numbers if number in missing]
            read_blocks = in_blocks(read(list(chain(*open_blocks))) if open_blocks else (), open_blocks)
            for number in numbers:
                path = part / f"{number:06d}"
                if number in missing:
                    write_block(path, *_encode_block(self.front, next(read_blocks), self.views, number))
                paths.append(path)
                done += len(self.blocks[number])
                progress(done)
        return paths

    def _block(self, path: Path) -> tuple[list[str], npt.NDArray[Any]] | None:
        """A block's record ids and codes or values, if it is whole."""
        asked = [entry.record_id for entry in self.blocks[int(path.name)]]
        return read_block(path, asked, _empty(self.front, 0, self.views))

    def shards(self) -> list[Path]:
        """All blocks, from shards; nothing is written.

        Raises:
            CheckpointError: unless all shards are there and whole, and make up just this store; see `whole_shards`.
        """
        ids = [[entry.record_id for entry in block] for block in self.blocks]
        return whole_shards(self.unfinished, self.plan(sharded=True), ids, _empty(self.front, 0, self.views))

    def join(self, paths: Sequence[Path]) -> TokenStore:
        """Makes the store of all its blocks, and removes them.

        Raises:
            DataError: if no recording could be read.
            UsageError: if another process is joining them.
        """
        store = self.finished()
        if store is None:
            with locked(self.unfinished / ".lock", where=self.folder):  # it goes with `unfinished`
                store = self.finished()
                return self._join(paths) if store is None else store
        return store

    def _join(self, paths: Sequence[Path]) -> TokenStore:
        names: list[str] = []
        for path in paths:
            block = self._block(path)
            if block is None:
                remedy = "The same command encodes it again; of a shard, its own."
                raise CheckpointError("is damaged", where=path.with_suffix(".npy"), remedy=remedy)
            names += block[0]
        if not names:
            raise DataError(
                f"none of its {len(self.entries)} recordings could be read",
                where=self.folder,
                remedy="Check the dataset.",
            )
        held = "codes" if self.front.width is None else "values"
        shape = (len(names), *_empty(self.front, 0, self.views).shape[1:])
        temporary = self.unfinished / f"{held}.npy"
        codes = reserve_array(temporary, TYPES[held][0], shape)
        row = 0
        for path in paths:
            _, values = self._block(path) or ((), codes[:0])
            codes[row : row + len(values)] = values
            row += len(values)
        codes.flush()
        del codes
        sync(temporary)
        temporary.replace(self.folder / f"{held}.npy")
        manifest = {
            "schema": SCHEMA,
            "holds": held,
            "shape": list(shape),
            "codec": self.codec_hash,
            "data": self.data,
            "dataset": self.dataset,
            "views": self.views,
            "asked": len(self.entries),
            "left_out": len(self.entries) - len(names),
            "keys": names,
        }
        manifest["sha256"] = seal(manifest, [self.folder / f"{held}.npy"])
        write_whole(self.folder / "manifest.json", json.dumps(manifest))
        remove_folder(self.unfinished)
        return TokenStore.open(self.folder, self.codec_hash)


def in_blocks(
    pairs: Iterable[tuple[Entry, Recording]], blocks: Iterable[Sequence[Entry]]
) -> Iterator[list[tuple[Entry, Recording]]]:
    """The pairs that each block has among `pairs`, which come in the order of the blocks and may leave entries out."""
    rest, waiting = iter(pairs), list[tuple[Entry, Recording]]()
    for block in blocks:
        ids, found = {entry.record_id for entry in block}, list[tuple[Entry, Recording]]()
        # Nothing is read past a block's last entry, unless that was left out: what is read is then soon on disk.
        while not (found and found[-1][0].record_id == block[-1].record_id):
            pair = waiting.pop() if waiting else next(rest, None)
            if pair is None:
                break
            if pair[0].record_id not in ids:
                waiting.append(pair)
                break
            found.append(pair)
        yield found


def write_store(
    folder: Path,
    front: FrontEnd,
    codec_hash: str,
    entries: Sequence[Entry],
    read: Read,
    *,
    dataset: str,
    views: int = 1,
    progress: Callable[[int], object] = lambda done: None,
) -> TokenStore:
    """Tokenises `entries` into `folder`, in one run; one that was stopped continues after its last whole block.

    Args: see `StoreWriter` and its `encode`.

    Raises:
        CheckpointError: if `folder` holds the tokens of other data or another front-end, or shards.
        DataError: if no recording could be read.
        UsageError: if the front-end has more codes than fit into 16 bits.
    """
    writer = StoreWriter(folder, front, codec_hash, entries, dataset, views)
    store = writer.finished()
    return store if store is not None else writer.join(writer.encode(read, progress=progress))


def _empty(front: FrontEnd, recordings: int, views: int) -> npt.NDArray[Any]:
    """What a block is filled into: codes (R, views, N) uint16 or values (R, views, N, width) float16."""
    shape = (recordings, views, front.positions)
    if front.width is None:
        return np.full(shape, FILL, np.uint16)
    return np.zeros((*shape, front.width), np.float16)


def _encode_block(
    front: FrontEnd, pairs: list[tuple[Entry, Recording]], views: int, seed: int
) -> tuple[list[str], npt.NDArray[Any]]:
    """Record ids, and codes (R, views, N) uint16 or values (R, views, N, width) float16."""
    block = _empty(front, len(pairs), views)
    if not pairs:
        return [], block
    signal = torch.from_numpy(np.stack([recording.signal for _, recording in pairs]))
    device = next(chain(front.parameters(), front.buffers()), torch.empty(0)).device
    for view, shifted in enumerate(views_of(signal, views, seed)):
        for first in range(0, len(pairs), 16):
            found = front.encode(shifted[first : first + 16].to(device)).cpu()
            if front.width is not None and not bool((found.abs() <= np.finfo(np.float16).max).all()):
                raise DataError(
                    "the front-end's values do not fit into 16 bits",
                    where=pairs[first][0].record_id,
                    remedy="Look for a recording without signal, or train the front-end again.",
                )
            codes = found.numpy()  # -1, for "nothing more", becomes FILL
            block[first : first + 16, view, : codes.shape[1]] = codes.astype(block.dtype)
    return [entry.record_id for entry, _ in pairs], block
