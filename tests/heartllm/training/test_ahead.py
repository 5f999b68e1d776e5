"""Batches made ahead: the same ones, in order, once each."""

from __future__ import annotations

import threading

import pytest

from heartllm.training.ahead import Ahead


def test_each_step_is_made_once_and_the_last_is_the_last() -> None:
    made: list[int] = []

    def make(step: int) -> str:
        made.append(step)
        return f"batch {step}"

    with Ahead(make, steps=5) as ahead:
        assert [ahead(step) for step in (2, 2, 3, 3, 4)] == ["batch 2", "batch 2", "batch 3", "batch 3", "batch 4"]
    assert made == [2, 3, 4]


def test_the_next_is_made_while_this_one_is_used() -> None:
    started = threading.Event()

    def make(step: int) -> int:
        if step == 1:
            started.set()
        return step

    with Ahead(make, steps=9) as ahead:
        assert ahead(0) == 0
        assert started.wait(10)  # though nobody has asked for it


def test_an_error_comes_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("step 1")
        return step

    with Ahead(make, steps=9) as ahead:
        assert ahead(0) == 0
        with pytest.raises(ValueError, match="step 1"):
            ahead(1)


def test_what_is_under_way_is_waited_for_at_the_end() -> None:
    release, done = threading.Event(), []

    def make(step: int) -> int:
        if step == 1:
            release.wait(10)
            done.append(step)
        return step

    with Ahead(make, steps=9) as ahead:
        ahead(0)
        release.set()
    assert done in ([], [1])
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
