"""A key-value cache that keeps room for what is to come."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def growing_cache() -> Any:
    """A `DynamicCache` that appends in place.

    The one of transformers copies all keys and values at every token: at 700 cached tokens that costs a small model
    more than the token itself. This one doubles its room when that is full, as lists do, and hands out views of it.
    """
    from transformers import DynamicCache

    class GrowingCache(DynamicCache):
        def __init__(self) -> None:
            super().__init__()
            self.room: list[tuple[Tensor, Tensor]] = []  # keys and values of each layer: (B, heads, room, width)
            self.filled: list[int] = []

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            """(B, heads, S, width) of a layer -> all its keys and values so far, (B, heads, cached + S, width)."""
            if layer_idx == len(self.room):
                self.room.append((key_states[:, :, :0], value_states[:, :, :0]))
                self.filled.append(0)
            start, end = self.filled[layer_idx], self.filled[layer_idx] + key_states.shape[2]
            keys, values = self.room[layer_idx]
            if end > keys.shape[2]:
                keys, values = (
                    _with_room(old, new, 2 * end, start) for old, new in ((keys, key_states), (values, value_states))
                )
                self.room[layer_idx] = keys, values
            keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
            self.filled[layer_idx] = end
            return keys[:, :, :end], values[:, :, :end]

        def get_seq_length(self, layer_idx: int = 0, *_: Any, **__: Any) -> int:
            """How many tokens of a layer are cached."""
            return self.filled[layer_idx] if layer_idx < len(self.filled) else 0

    return GrowingCache()


def _with_room(old: Tensor, new: Tensor, room: int, filled: int) -> Tensor:
    batch, heads, _, width = new.shape
    wider = new.new_empty(batch, heads, room, width)
    wider[:, :, :filled] = old[:, :, :filled]
    return wider
