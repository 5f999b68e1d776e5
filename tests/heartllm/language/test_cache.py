"""The cache that appends in place holds what transformers' own one holds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from heartllm.language.cache import growing_cache

LAYERS, HEADS, WIDTH = 2, 2, 4


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), rows=st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_all_that_was_appended_comes_back_as_from_transformers(lengths: list[int], rows: int) -> None:
    ours, theirs = growing_cache(), DynamicCache()
    assert ours.get_seq_length() == theirs.get_seq_length() == 0
    generator = torch.Generator().manual_seed(0)
    for length in lengths:
        for layer in range(LAYERS):
            new = [torch.randn(rows, HEADS, length, WIDTH, generator=generator) for _ in range(2)]
            for mine, expected in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                torch.testing.assert_close(mine, expected, atol=0, rtol=0)
    assert ours.get_seq_length(1) == theirs.get_seq_length(1) == sum(lengths)


def test_what_was_handed_out_stays_as_it_was() -> None:
    cache = growing_cache()
    first = torch.ones(1, HEADS, 3, WIDTH)
    keys, _ = cache.update(first, first, 0)
    for value in (2.0, 3.0):
        cache.update(torch.full((1, HEADS, 1, WIDTH), value), first[:, :, :1], 0)
    torch.testing.assert_close(keys, first)


def test_room_is_made_seldom() -> None:
    cache = growing_cache()
    one, rooms = torch.zeros(1, 1, 1, 2), set()
    for _ in range(200):
        keys, _ = cache.update(one, one, 0)
        rooms.add(keys.untyped_storage().nbytes() // 8)
    assert rooms == {2, 6, 14, 30, 62, 126, 254}
