"""How many answers are generated at once: as asked, or as many as the memory holds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from heartllm.errors import DataError, out_of_memory

Item = TypeVar("Item")
Answer = TypeVar("Answer")
AUTO_ON_GPU, AUTO_ON_CPU = 256, 32  # where "auto" starts; on a CPU larger batches bring nothing


class Batches:
    """Cuts work into batches; with `auto`, a batch that the memory does not hold is halved and tried again.

    Args:
        size: items at once; with `auto` the most to begin with.
        auto: halve where memory runs out. What is asked first should be what needs most memory (`longest_first`).
        warn: is told of each halving.
    """

    def __init__(self, size: int, *, auto: bool = False, warn: Callable[[str], None] = lambda message: None) -> None:
        self.size, self.auto, self.warn = size, auto, warn

    def run(
        self, items: Sequence[Item], answer: Callable[[Sequence[Item]], Sequence[Answer]]
    ) -> Iterator[tuple[Item, Answer]]:
        """Each item with its answer, in the order of the items.

        Raises:
            DataError: if there is no memory for the batch size asked, or for a single item.
        """
        position = 0
        while position < len(items):
            batch = items[position : position + self.size]
            try:
                answers = list(answer(batch))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if not self.auto or len(batch) == 1:
                    remedy = "Ask a smaller model." if len(batch) == 1 else "Use --batch_size auto, or a smaller one."
                    raise DataError(
                        f"no memory for {len(batch)} answers at once", where="--batch_size", remedy=remedy
                    ) from None
                answers = None  # the traceback, and with it the batch's tensors, is let go before the next try
            if answers is None:
                self.size = len(batch) // 2
                _free()
                self.warn(f"no memory for {len(batch)} answers at once; going on with {self.size}")
                continue
            yield from zip(batch, answers, strict=True)
            position += len(batch)


def longest_first(items: Sequence[Item], length: Callable[[Item], int], count: int) -> list[Item]:
    """The items with the `count` longest in front, so that the first batch probes what the memory holds."""
    order = sorted(range(len(items)), key=lambda index: (-length(items[index]), index))[:count]
    chosen = set(order)
    return [*(items[index] for index in order), *(item for index, item in enumerate(items) if index not in chosen)]


def _free() -> None:
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
