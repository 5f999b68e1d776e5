"""What the encoders cost on one thread: codes of 10 s recordings; forward and backward of the two kinds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.codec.codec import Codec, CodecConfig  # noqa: E402
from heartllm.codec.networks import PaperEncoder, PlainEncoder  # noqa: E402
from heartllm.performance.arithmetic import encode_plain  # noqa: E402

ENCODERS = {"plain": PlainEncoder, "paper": PaperEncoder}
RECORDINGS, BATCH = 2, 16
RATIO = 4  # the paper's encoder costs at least so much more; about 8 to 10 times on an idle core


def step(kind: str) -> Callable[[], None]:
    """A training step of an encoder on RECORDINGS recordings, without the optimiser."""
    torch.manual_seed(0)
    encoder, signal = ENCODERS[kind](4), torch.randn(RECORDINGS, 12, 5000)

    def run() -> None:
        encoder.zero_grad()
        encoder(signal).square().mean().backward()

    return run


@pytest.mark.model
@pytest.mark.benchmark(group="codec encoder, forward and backward, 2 recordings")
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_speed(benchmark: Any, kind: str) -> None:
    benchmark.pedantic(step(kind), rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # nothing is measured among parallel processes
        benchmark.extra_info["core_seconds_a_recording"] = benchmark.stats.stats.min / RECORDINGS


@pytest.mark.model
def test_plain_encoder_is_several_times_cheaper() -> None:
    """Best of three each, in turn, in processor time: a busy machine slows both."""
    runs = {kind: step(kind) for kind in ENCODERS}
    best = dict.fromkeys(ENCODERS, float("inf"))
    for run in runs.values():
        run()
    for _ in range(3):
        for kind, run in runs.items():
            start = time.process_time()
            run()
            best[kind] = min(best[kind], time.process_time() - start)
    print({kind: round(seconds / RECORDINGS, 4) for kind, seconds in best.items()})
    assert best["paper"] > RATIO * best["plain"]


@pytest.mark.model
@pytest.mark.benchmark(group="codec")
def test_encoding_against_a_loop_over_leads(race: Any, matrix_rates: dict[str, float]) -> None:
    torch.manual_seed(0)
    codec = Codec(CodecConfig()).eval()
    signal = torch.randn(BATCH, 12, 5000).cumsum(-1) / 50
    encoder = codec.encoder

    @torch.no_grad()
    def plain() -> list[Any]:
        codes = []
        for recording in signal:
            scaled = codec.to_network(recording[None])[0][0]
            leads = [encoder.lead(lead[None, None]) for lead in scaled]
            latent = encoder.to_latent(encoder.mix(torch.cat(leads, 1))).transpose(1, 2)
            codes.append(codec.fsq(latent)[1][0])
        return codes

    same = (codec.encode(signal) == torch.stack(plain())).float().mean()
    assert same > 0.999  # a sum in another order may fall on the other side of a step
    race(
        "codec encode",
        unit="recording",
        ours=lambda: codec.encode(signal),
        plain=plain,
        plain_is="one recording and one lead at a time",
        units=BATCH,
        least=1.2,
        aim=2.0,
        work=BATCH * encode_plain(),
        limit=("fp32 matrix products", matrix_rates["fp32"]),
    )
