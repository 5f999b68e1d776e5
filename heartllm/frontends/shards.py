"""Parts of an unfinished token store: one a machine, each in a folder of its own, so that parts may be copied together.

    unfinished/plan.json, 000000.npy, 000000.json, ...       of a store that one run writes
    unfinished/shard-2-of-8/plan.json, 000001.npy, ...       of a store that eight runs write, wherever they do

Shard 2/8 has the blocks 1, 9, 17, ... What is in a block depends on its number, not on who writes it, so the store is
the same by however many runs, in whatever order, it was written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from heartllm.errors import CheckpointError, UsageError
from heartllm.texts import read_json
from heartllm.untrusted import inside, read_array
from heartllm.writing import write_array, write_whole

PLAN = "plan.json"
_FIELDS = ("codec", "views", "data", "order", "shard")  # of a plan; views are also in `data`, and are told by name


@dataclass(frozen=True, order=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    count: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "2/8".

        Raises:
            UsageError: for anything else, and for a number outside 1 to the count.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"{text!r} is no shard", where="--shard", remedy="Write its number and how many there are: 1/8 to 8/8."
            )
        return cls(int(found[2]), int(found[1]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        return f"shard-{self.number}-of-{self.count}"

    def blocks(self, total: int) -> range:
        """Which of `total` blocks are its own."""
        return range(self.number - 1, total, self.count)


def shards_in(unfinished: Path) -> list[Shard]:
    """The shards whose folders are there, in order."""
    found = []
    for path in unfinished.glob("shard-*-of-*") if unfinished.is_dir() else ():
        named = re.fullmatch(r"shard-([1-9][0-9]{0,5})-of-([1-9][0-9]{0,5})", path.name)
        if named is not None and int(named[1]) <= int(named[2]) and path.is_dir():
            found.append(Shard(int(named[2]), int(named[1])))
    return sorted(found)


def open_part(unfinished: Path, plan: Mapping[str, object], shard: Shard | None) -> Path:
    """The folder of one part, new or to be continued, with its plan in it.

    Args:
        plan: what the store is to hold, see `StoreWriter.plan`; that of a shard also says which.

    Raises:
        CheckpointError: if it holds another plan's blocks, or lies beside parts that it does not belong with.
    """
    others = shards_in(unfinished)
    if shard is None and others:
        raise CheckpointError(
            f"is being written in shards ({others[0]} is there)",
            where=unfinished,
            remedy="Give --merge once all of them are whole, or another --out.",
        )
    if shard is not None:
        if (unfinished / PLAN).exists():
            raise CheckpointError(
                "is being written by a run without --shard",
                where=unfinished,
                remedy="Continue it without --shard, or give another --out.",
            )
        check_counts(unfinished, {shard.count, *(other.count for other in others)}, f"--shard {shard}")
    part = unfinished if shard is None else unfinished / shard.folder
    if (part / PLAN).exists():
        check_plan(part, plan)
    part.mkdir(parents=True, exist_ok=True)
    write_whole(part / PLAN, json.dumps(plan))
    return part


def check_counts(unfinished: Path, counts: set[int], asked: str) -> None:
    """Refuses shards of different counts, which hold the same recordings."""
    if len(counts) > 1:
        told = " and ".join(f"of {count}" for count in sorted(counts))
        raise CheckpointError(
            f"{asked}: shards {told} overlap",
            where=unfinished,
            remedy="Use one count for all shards; delete the folders of the other.",
        )


def check_plan(part: Path, plan: Mapping[str, object]) -> None:
    """Holds a part's plan against what the store is to hold.

    Raises:
        CheckpointError: naming the first field that differs.
    """
    remedy = "Give another --out, or delete this folder and tokenise its part again with the same codec, recipe, data."
    try:
        there = read_json(part / PLAN)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=part / PLAN, remedy=remedy) from None
    for name in _FIELDS:
        found = there.get(name) if isinstance(there, dict) else None
        if found != plan.get(name):
            told = f"'{name}' is {str(found)[:12]}, not {str(plan.get(name))[:12]}"
            raise CheckpointError(f"belongs to another unfinished store: {told}", where=part / PLAN, remedy=remedy)


def whole_shards(unfinished: Path, plans: Mapping[str, object], ids: Sequence[Sequence[str]], like: Any) -> list[Path]:
    """The blocks of all shards in their order, as paths without a suffix, once it is sure that they are the store's.

    Args:
        plans: the plan of any shard, without "shard".
        ids: of each block, the record ids that it was asked for.
        like: an empty array (0, views, N) or (0, views, N, width) of the type that blocks have.

    Raises:
        CheckpointError: for a shard that is missing, not whole, or made otherwise, for shards that overlap, and for
            damaged blocks.
    """
    there = shards_in(unfinished)
    if not there:
        raise CheckpointError(
            "holds no shards", where=unfinished, remedy="Tokenise with --shard 1/N to N/N first, or without --merge."
        )
    if (unfinished / PLAN).exists():
        raise CheckpointError(
            f"holds a run without --shard beside shard {there[0]}: they overlap",
            where=unfinished,
            remedy="Delete plan.json and the blocks beside it, or the folders of the shards.",
        )
    check_counts(unfinished, {shard.count for shard in there}, "--merge")
    shards = [Shard(there[0].count, number + 1) for number in range(there[0].count)]
    lacking = [str(shard) for shard in shards if not (unfinished / shard.folder / PLAN).exists()]
    if lacking:
        raise CheckpointError(
            f"shard {', '.join(lacking[:8])}{' and more' if len(lacking) > 8 else ''} missing",
            where=unfinished,
            remedy=f"Tokenise with --shard {lacking[0]}, or copy its folder here.",
        )
    found: dict[int, Path] = {}
    for shard in shards:
        part = unfinished / shard.folder
        check_plan(part, {**plans, "shard": str(shard)})
        own, has = (
            set(shard.blocks(len(ids))),
            {int(path.stem) for path in part.glob("*.json") if path.stem.isdecimal()},
        )
        if has - own:
            raise CheckpointError(
                f"holds block {min(has - own)}, which is not of shard {shard}: shards overlap",
                where=part,
                remedy=f"Delete this folder and give --shard {shard} again.",
            )
        if own - has:
            raise CheckpointError(
                f"shard {shard} is not whole: {len(has):,} of its {len(own):,} blocks are there",
                where=part,
                remedy=f"Give --shard {shard} again to continue it, or copy all of it.",
            )
        for number in sorted(own):
            found[number] = part / f"{number:06d}"
            _check_block(found[number], ids[number], like, shard)
    return [found[number] for number in range(len(ids))]


def write_block(path: Path, keys: Sequence[str], values: npt.NDArray[Any]) -> None:
    """Writes a block; `path` without a suffix. The list of keys is written last, and declares it whole."""
    write_array(path.with_suffix(".npy"), values)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    write_whole(path.with_suffix(".json"), json.dumps({"keys": list(keys), "sha256": digest}))


def read_block(path: Path, asked: Sequence[str], like: Any) -> tuple[list[str], npt.NDArray[Any]] | None:
    """Record ids and values of a block; None where it is not there, not whole, damaged or not this block's.

    Args:
        asked: the record ids that it was asked for. like: see `whole_shards`.
    """
    try:
        told = read_json(path.with_suffix(".json"))
        # Before blocks were hashed, there was the list of keys alone.
        keys, digest = (told, None) if isinstance(told, list) else (told["keys"], told["sha256"])
        values = read_array(inside(path.parent, f"{path.name}.npy"), mmap="r" if keys else None)
        known = set(keys)
        fits = keys == [key for key in asked if key in known]
        fits = fits and (values.dtype, values.shape) == (like.dtype, (len(keys), *like.shape[1:]))
        whole = digest is None or hashlib.sha256(values.tobytes()).hexdigest() == digest
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (keys, values) if fits and whole else None


def _check_block(path: Path, asked: Sequence[str], like: Any, shard: Shard) -> None:
    """A block that was cut off while it was copied, or comes from elsewhere, is refused."""
    if read_block(path, asked, like) is None:
        raise CheckpointError(
            "is damaged, or not this block's",
            where=path.with_suffix(".npy"),
            remedy=f"Copy it again, or delete its .json and give --shard {shard} again.",
        )
