"""The next step's batch, drawn while this one trains."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """`make` of one step after another, each of which another thread makes while the one before it is used.

    Drawing and packing hold Python's lock and a training step hardly does, so a device never waits for them.

    Args:
        make: step -> its batch, a function of the step alone.
        steps: there is nothing to make from this step on.
    """

    def __init__(self, make: Callable[[int], T], steps: int) -> None:
        self.make, self.steps = make, steps
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self.made: dict[int, Future[T]] = {}

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> T:
        """That of a step; asked again, as a batch in parts is, it is not made again."""
        self.made = {
            wanted: self.made.get(wanted) or self.pool.submit(self.make, wanted)
            for wanted in (step, step + 1)
            if wanted == step or wanted < self.steps
        }
        return self.made[step].result()
