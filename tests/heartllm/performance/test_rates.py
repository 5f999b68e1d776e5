"""Rates, growth and profiles at the smallest sizes, and the prepared script on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.errors import UsageError  # noqa: E402
from heartllm.performance import growth, rates  # noqa: E402
from heartllm.performance.arithmetic import forward  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


def test_operations_of_the_language_model_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = rates.tiny_model("tiny")
    model.backbone.config._attn_implementation = "eager"
    batch = rates.tuning_batch(model.vocabulary, 1, 2)
    length = batch.ids.shape[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden = model.hidden_states(batch.ids, batch.positions, batch.mask)
        _ = hidden[:, :5] @ model.table().T
    counted = forward(rates.shape_of(model), length, length**2, 5)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.slow
def test_the_script_runs_small_on_the_cpu(tmp_path: Path) -> None:
    small = {"DEVICE": "cpu", "SECONDS_EACH": "0.01", "ECGS": "1", "BATCH": "1"}
    environment = {**os.environ, **small, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    done = subprocess.run(
        [ROOT / "reports/performance/gpu.sh", "tiny"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "tiny.json").read_text())
    assert [stage["name"] for stage in found["stages"]] == ["encode", "forecasting", "tuning", "evaluation"]
    assert all(0 < stage["utilisation"] < 1.5 and stage["rate"] > 0 for stage in found["stages"])
    differ = found["compared with the CPU"]
    assert differ["codes"] == 313
    assert differ["codes that differ"] == differ["fp32 answers that differ"] == 0


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="--device"):
        rates.main(["--device", "nowhere"])
    with pytest.raises(UsageError, match="positive"):
        rates.main(["--ecgs", "0"])
    with pytest.raises(UsageError, match="--size"):
        growth.main(["--point", next(iter(growth.SIZES))])


def test_exponents_are_those_of_powers() -> None:
    sizes = [100, 1000, 10_000]
    exponent, error = growth.fit(sizes, [3e-4 * size**1.5 for size in sizes])
    assert exponent == pytest.approx(1.5)
    assert error == pytest.approx(0, abs=1e-9)
    assert growth.fit([1, 2], [1.0, 4.0])[0] == pytest.approx(2)


def test_a_point_of_a_curve() -> None:
    found = growth.point("codes of a sequence, forecasting step", 8)
    assert found["size"] == 8
    assert found["seconds"] > 0
    assert found["peak_bytes"] >= found["before_bytes"] > 0
