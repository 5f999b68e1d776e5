"""Examples for the tests of language-model training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


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
