from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.errors import DataError
from heartllm_eval.models.batching import Batches, longest_first, out_of_memory


class Memory:
    """Holds `limit` units at once; an item takes its own value."""

    def __init__(self, limit: int) -> None:
        self.limit, self.sizes = limit, list[int]()

    def answer(self, batch: Sequence[int]) -> list[str]:
        self.sizes.append(len(batch))
        if sum(batch) > self.limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [f"answer {item}" for item in batch]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=60), st.integers(1, 64), st.integers(10, 80))
def test_auto_answers_everything_once_and_in_order(items: list[int], size: int, limit: int) -> None:
    memory, told = Memory(limit), list[str]()
    batches = Batches(size, auto=True, warn=told.append)
    with patch("heartllm_eval.models.batching.gc"):  # slow in a process that holds much; it changes no answer
        found = list(batches.run(items, memory.answer))
    assert found == [(item, f"answer {item}") for item in items]
    failures = len(told)
    assert batches.size >= 1
    assert len(memory.sizes) >= failures


def test_the_longest_go_first_so_that_memory_runs_out_only_at_the_start() -> None:
    items = [1] * 50 + [10] * 8 + [1] * 50
    ordered = longest_first(items, lambda item: item, 16)
    assert ordered[:8] == [10] * 8
    assert sorted(ordered) == sorted(items)
    memory = Memory(45)
    list(Batches(16, auto=True).run(ordered, memory.answer))
    assert memory.sizes[:3] == [16, 8, 4]
    assert set(memory.sizes[2:]) == {4}


def test_a_batch_size_that_was_asked_is_not_changed() -> None:
    with pytest.raises(DataError, match=r"no memory for 8 answers at once. Use --batch_size auto"):
        list(Batches(8).run([10] * 8, Memory(20).answer))


def test_one_item_that_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match="no memory for 1 answers at once"):
        list(Batches(8, auto=True).run([50], Memory(20).answer))


def test_other_errors_pass() -> None:
    def wrong(batch: Sequence[int]) -> list[str]:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Batches(8, auto=True).run([1, 2], wrong))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not out_of_memory(ValueError("out of memory"))
