"""The capacity page follows from its inputs; the arithmetic is that of torch's own counter and of published sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heartllm.errors import DataError, UsageError
from heartllm.performance.arithmetic import encode_plain
from heartllm.performance.capacity import INPUTS, MODELS, load_inputs, main, page, stages

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_page_is_what_the_inputs_give(tmp_path: Path) -> None:
    main(["--check", str(ROOT / "docs" / "capacity.md")])
    other = tmp_path / "page.md"
    other.write_text(page(load_inputs()) + "\n")
    with pytest.raises(DataError, match="Write it again"):
        main(["--check", str(other)])


def test_sizes_are_those_of_the_models() -> None:
    three, eight = MODELS.values()
    assert three.weights / 1e9 == pytest.approx(3.21, abs=0.02)
    assert eight.weights / 1e9 == pytest.approx(8.03, abs=0.02)
    assert eight.cache_bytes == 131_072  # 128 KiB a token, as published for grouped queries


def test_stages_scale_with_work_and_machines() -> None:
    given, shape = load_inputs(), next(iter(MODELS.values()))
    one, eight = stages(given, shape, 1), stages(given, shape, 8)
    twice = stages(replace(given, recordings=2 * given.recordings, questions=2 * given.questions), shape, 1)
    for a, b, c in zip(one, eight, twice, strict=True):
        assert c.operations == pytest.approx(2 * a.operations)
        assert c.hours == pytest.approx(2 * a.hours)
        assert b.hours <= a.hours
        assert a.hours * 3600 == pytest.approx(a.seconds[a.bottleneck])
    # Forecasting: two passes of 2 operations a weight and token, and attention and logits above that.
    least = 0.9 * 800_000 * 4 * shape.layers * shape.layer_weights * given.prefix
    assert 1.0 < one[1].operations / least < 1.3


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    text = INPUTS.read_text()
    for old, new in (
        ("recordings = 800000", "recordings = 0"),
        ("value = 989e12", "value = -1.0"),
        ('kind = "assumed"', 'kind = "guessed"'),
        ("views = 4", "vews = 4"),
    ):
        path = tmp_path / "inputs.toml"
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UsageError):
            load_inputs(path)


def test_operations_of_the_encoder_are_those_that_torch_counts() -> None:
    torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
    from torch.utils.flop_counter import FlopCounterMode

    from heartllm.codec.networks import PlainEncoder

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        PlainEncoder(4)(torch.zeros(1, 12, 5000))
    assert encode_plain() == pytest.approx(counter.get_total_flops(), rel=1e-6)
