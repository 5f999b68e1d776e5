"""The codec as a whole: amplitude, locality, scales, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heartllm.checkpoint import load_codec, save_frontend
from heartllm.codec.codec import Codec, CodecConfig, code_count
from heartllm.config import dumps, from_dict, load
from heartllm.errors import CheckpointError, DataError, UsageError

AUTHORS = CodecConfig(network="paper", scale="zscore", fsq="sigmoid", decoder_width=16)


def make(config: CodecConfig) -> Codec:
    """A codec whose latents spread over the levels, as a trained one's do; an untrained one would use a few codes."""
    torch.manual_seed(1)
    codec = Codec(config).eval()
    last = codec.encoder.to_latent if config.network == "plain" else codec.encoder.to_code
    with torch.no_grad():
        latent = codec.encoder(codec.to_network(beats())[0])[0]
        deviation = latent.std(0)
        last.weight.div_(deviation.reshape(-1, *[1] * (last.weight.ndim - 1)))
        last.bias.copy_((last.bias - latent.mean(0)) / deviation)
    return codec


def beats(samples: int = 5000, batch: int = 1) -> torch.Tensor:
    """(B, 12, T) mV: spikes a second apart, waves between them, a little noise."""
    time = torch.arange(samples) / 500
    phase = time % 1.0
    shape = torch.exp(-(((phase - 0.4) / 0.012) ** 2)) + 0.25 * torch.exp(-(((phase - 0.65) / 0.05) ** 2))
    gains = torch.linspace(-0.7, 1.6, 12)[:, None]
    noise = torch.randn(batch, 12, samples, generator=torch.Generator().manual_seed(2))
    return gains * shape + 0.02 * noise


def equal(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a == b).float().mean())


@pytest.mark.parametrize(
    "config", [CodecConfig(), CodecConfig(scale="millivolt", fsq="sigmoid"), AUTHORS, CodecConfig(network="paper")]
)
def test_encode_and_decode(config: CodecConfig) -> None:
    codec = make(config)
    index = codec.encode(beats(1000, 2))
    assert index.shape == (2, 63)
    assert code_count(1000) == 63
    assert index.dtype == torch.int64
    assert 0 <= int(index.min()) <= int(index.max()) < codec.codes == 1296
    assert codec.decode(index).shape == (2, 12, 1008)
    assert codec.decode(index, 1000).shape == (2, 12, 1000)
    reconstruction, same = codec(codec.to_network(beats(1000, 2))[0])
    assert reconstruction.shape == (2, 12, 1000)
    assert torch.equal(same, index)


def test_plain_sees_gain_and_the_authors_codec_does_not() -> None:
    signal = beats()
    plain, authors = make(CodecConfig()), make(AUTHORS)
    for gain in (0.5, 2.0):  # powers of two, so that not even rounding differs
        assert equal(plain.encode(signal), plain.encode(gain * signal)) < 0.8
        assert equal(authors.encode(signal), authors.encode(gain * signal)) == 1
        own = signal * torch.where(torch.arange(12) % 2 == 0, gain, 1.0)[:, None]
        assert equal(authors.encode(signal), authors.encode(own)) == 1
    assert len(authors.encode(signal).unique()) > 20


def test_group_norm_cancels_gain_even_in_millivolts() -> None:
    codec = make(CodecConfig(network="paper", scale="millivolt", clip=100.0))
    signal = beats()
    assert equal(codec.encode(signal), codec.encode(4 * signal)) > 0.95


def test_a_change_in_the_last_second_reaches_no_earlier_code() -> None:
    plain, authors = make(CodecConfig()), make(AUTHORS)
    signal = beats()
    changed = signal.clone()
    changed[..., 4500:] += torch.randn(12, 500)
    reach = math.ceil((4500 - 44) / 16)  # the first code whose 89 samples include sample 4,500
    before, after = plain.encode(signal), plain.encode(changed)
    assert torch.equal(before[:, :reach], after[:, :reach])
    assert not torch.equal(before[:, reach:], after[:, reach:])
    # Normalised over the record, the authors' codes all depend on all of it.
    assert not torch.equal(authors.encode(signal)[:, :reach], authors.encode(changed)[:, :reach])


def test_plain_codes_move_with_the_signal() -> None:
    codec = make(CodecConfig())
    signal = beats(2000)
    codes, moved = codec.encode(signal), codec.encode(signal[..., 160:])
    assert torch.equal(codes[:, 13:120], moved[:, 3:110])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_encode_refuses_what_is_not_finite(bad: float) -> None:
    signal = beats(320)
    signal[0, 3, 100] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        make(CodecConfig()).encode(signal)


def test_autocast_does_not_change_codes() -> None:
    codec, signal = make(CodecConfig()), beats(1600)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = codec.encode(signal)
    assert torch.equal(inside, codec.encode(signal))


SCALED = {scale: Codec(CodecConfig(scale=scale, decoder_width=8)) for scale in ("millivolt", "companded")}
for _codec in SCALED.values():
    _codec.lead_scale.copy_(torch.linspace(0.05, 0.6, 12))


@given(value=st.floats(-5, 5, width=32), scale=st.sampled_from(["millivolt", "companded"]))
def test_scales_are_inverted_up_to_the_clip(value: float, scale: str) -> None:
    codec = SCALED[scale]
    signal = torch.full((1, 12, 16), value)
    x, _ = codec.to_network(signal)
    torch.testing.assert_close(codec.to_millivolt(x), signal, atol=1e-5, rtol=1e-4)
    expected = math.asinh(value / 0.05) if scale == "companded" else value / 0.05
    assert float(x[0, 0, 0]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_clip_bounds_both_ways() -> None:
    codec = Codec(CodecConfig(decoder_width=8, clip=5.0))
    x, _ = codec.to_network(torch.full((1, 12, 16), 80.0))
    torch.testing.assert_close(codec.to_millivolt(x), torch.full((1, 12, 16), 5.0))
    assert float(codec.to_millivolt(torch.full((1, 12, 4), 50.0)).max()) == pytest.approx(5.0, rel=1e-4)


def test_zscore_is_inverted_by_its_moments_only() -> None:
    codec, signal = Codec(AUTHORS), beats(500) + 0.3
    x, moments = codec.to_network(signal)
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(x.std(-1, correction=0), torch.ones(1, 12), atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.to_millivolt(x, moments), signal, atol=1e-5, rtol=0)
    assert codec.to_millivolt(x) is x


def test_a_flat_lead_stays_finite() -> None:
    signal = beats(500)
    signal[:, 5] = 0
    for config in (CodecConfig(), AUTHORS):
        assert torch.isfinite(make(config).decode(make(config).encode(signal))).all()


def test_configurations_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="lead_weights"):
        from_dict(CodecConfig, {"lead_weights": "separate"})
    with pytest.raises(UsageError, match="levels"):
        from_dict(CodecConfig, {"levels": [6, 1]})


def test_saved_codec_gives_the_same_codes(tmp_path: Path) -> None:
    codec = make(CodecConfig(decoder_width=8, levels=(5, 4, 3)))
    codec.lead_scale.mul_(1.5)
    save_frontend(codec, tmp_path)
    loaded, digest = load_codec(tmp_path)
    assert len(digest) == 64
    assert loaded.config == codec.config == load(CodecConfig, tmp_path / "codec.toml")
    assert torch.equal(loaded.encode(beats(800)), codec.encode(beats(800)))
    (tmp_path / "codec.toml").write_text(dumps(CodecConfig(decoder_width=16)), encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_codec(tmp_path)
