"""Writing a token store: read each recording once, encode it, keep 313 small integers (or what its front-end gives)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def write_store(
    folder: Path,
    front: FrontEnd,
    codec_hash: str,
    entries: Sequence[Entry],
    read: Callable[[Sequence[Entry]], Iterable[tuple[Entry, Recording]]],
    *,
    dataset: str,
    views: int = 1,
    progress: Callable[[int], object] = lambda done: None,
) -> TokenStore:
    """Tokenises `entries` into `folder`; a run that was stopped continues after its last whole block.

    Args:
        front: the frozen front-end, on the device that it is to run on.
        codec_hash: its hash.
        read: entries -> (entry, recording) pairs; recordings that cannot be read are simply not among them.
        views: tokenisations of each recording, see `views_of`.

    Raises:
        CheckpointError: if `folder` holds the tokens of other data or another front-end.
        DataError: if no recording could be read.
        UsageError: if the front-end has more codes than fit into 16 bits.
    """
    if front.codes is not None and front.codes > MOST_CODES:
        raise UsageError(
            f"the front-end has {front.codes:,} codes; a token store holds at most {MOST_CODES:,}",
            where="levels",
            remedy="Use fewer or smaller levels, or fewer merges.",
        )
    data = fingerprint([dataset, views, *sorted(entry.record_id for entry in entries)])
    if (folder / "manifest.json").exists():
        store = TokenStore.open(folder, codec_hash)
        if store.manifest["data"] != data:
            raise CheckpointError("holds the tokens of other recordings", where=folder, remedy="Give another --out.")
        return store
    part = folder / "unfinished"
    part.mkdir(parents=True, exist_ok=True)
    mark = part / "plan.json"
    about: dict[str, object] = {"codec": codec_hash, "data": data}
    # Blocks are counted in this order: in another one, or of another size, those already written would not fit.
    plan = {**about, "order": fingerprint([BLOCK, *(entry.record_id for entry in entries)])}
    if mark.exists() and mark.read_text(encoding="utf-8") != json.dumps(plan):
        raise CheckpointError(
            "holds an unfinished store of other data or another front-end", where=folder, remedy="Give another --out."
        )
    _write_text(mark, json.dumps(plan))
    blocks = [entries[first : first + BLOCK] for first in range(0, len(entries), BLOCK)]
    for number, block in enumerate(blocks):
        if not (part / f"{number:06d}.json").exists():
            keys, codes = _encode_block(front, list(read(block)), views, number)
            np.save(part / f"{number:06d}.npy", codes)
            # Written last: the list of keys declares its block whole.
            _write_text(part / f"{number:06d}.json", json.dumps(keys))
        progress(min(len(entries), (number + 1) * BLOCK))
    about |= {"dataset": dataset, "views": views, "asked": len(entries)}
    return _join(folder, part, len(blocks), "codes" if front.width is None else "values", about)


def _write_text(path: Path, text: str) -> None:
    """By another name first: a run that is killed leaves the whole file or none."""
    staged = path.with_name(f".{path.name}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def _encode_block(
    front: FrontEnd, pairs: list[tuple[Entry, Recording]], views: int, seed: int
) -> tuple[list[str], npt.NDArray[Any]]:
    """Record ids, and codes (R, views, N) uint16 or values (R, views, N, width) float16."""
    shape = (len(pairs), views, front.positions)
    if front.width is None:
        block: npt.NDArray[Any] = np.full(shape, FILL, np.uint16)
    else:
        block = np.zeros((*shape, front.width), np.float16)
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


def _join(folder: Path, part: Path, blocks: int, held: str, about: dict[str, object]) -> TokenStore:
    def keys() -> Iterator[list[str]]:
        for number in range(blocks):
            yield json.loads((part / f"{number:06d}.json").read_text(encoding="utf-8"))

    names = [key for block in keys() for key in block]
    if not names:
        raise DataError(
            f"none of its {about['asked']} recordings could be read", where=folder, remedy="Check the dataset."
        )
    shape = (len(names), *np.load(part / f"{0:06d}.npy", mmap_mode="r").shape[1:])
    temporary = part / f"{held}.npy"
    codes = np.lib.format.open_memmap(temporary, mode="w+", dtype=TYPES[held][0], shape=shape)
    row = 0
    for number in range(blocks):
        block = np.load(part / f"{number:06d}.npy")
        codes[row : row + len(block)] = block
        row += len(block)
    codes.flush()
    del codes
    temporary.replace(folder / f"{held}.npy")
    manifest = {
        "schema": SCHEMA,
        "holds": held,
        "shape": list(shape),
        **about,
        "left_out": int(str(about["asked"])) - len(names),
        "keys": names,
    }
    _write_text(folder / "manifest.json", json.dumps(manifest))
    shutil.rmtree(part)
    return TokenStore.open(folder, str(about["codec"]))
