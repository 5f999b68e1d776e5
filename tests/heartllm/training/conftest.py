"""Examples for the tests of language-model training, and processes to train in."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import HeartLLMError


@pytest.fixture
def examples(vocabulary: Any, tmp_path: Path) -> Any:
    """Twelve recordings of 70 codes in two views, each with a question."""
    import numpy as np

    from heartllm.codec.store import TokenStore
    from heartllm.data.records import Entry, Labels, Question
    from heartllm.training.examples import Examples, write_examples

    codes = np.random.default_rng(0).integers(0, 36, (12, 2, 70)).astype(np.uint16)
    keys = [f"r{number}" for number in range(12)]
    store = TokenStore(tmp_path, codes, {"keys": keys, "data": "h"}, {key: row for row, key in enumerate(keys)})
    entries = [
        Entry(key, key, "d", Path("nowhere"), labels=Labels(statements={"a": 0.0} if i % 2 else {}))
        for i, key in enumerate(keys)
    ]
    questions = {
        key: [Question(1, 1, 1, "single-verify", "scp_code", "Is it a?", ("yes" if i % 2 else "no",), (key,), ("a",))]
        for i, key in enumerate(keys)
    }
    write_examples(tmp_path / "e", [(0, store, entries, questions)], vocabulary, mark="m", minimum=2)
    return Examples(tmp_path / "e", [store], vocabulary, "m")


@pytest.fixture
def started() -> Callable[..., list[int]]:
    """Runs `work` in `count` processes, joined as a launcher's are, perhaps with FSDP; gives their exit codes."""
    from heartllm.training.processes import joined

    def start(count: int, work: Callable[[], object], fsdp: bool = False) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])

        def begin(rank: int) -> None:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_FSDP": str(fsdp).lower()}
            try:
                with joined("cpu") as device:
                    assert device == "cpu"
                    work()
            except HeartLLMError as error:
                print(error)
                os._exit(error.exit_code)

        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=begin, args=(rank,)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode is not None
        return [int(process.exitcode or 0) for process in processes]

    return start
