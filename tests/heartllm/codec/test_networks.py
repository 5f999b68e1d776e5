"""Encoders and decoders: lengths, sizes of the authors' networks, and what a code can and cannot see."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heartllm.codec.networks import PaperDecoder, PaperEncoder, PlainDecoder, PlainEncoder

FIELD = 44  # samples to either side of sample 16 n that code n of the plain encoder reads


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def networks() -> list[tuple[nn.Module, nn.Module]]:
    torch.manual_seed(0)
    return [(PlainEncoder(4).eval(), PlainDecoder(4, 16).eval()), (PaperEncoder(4).eval(), PaperDecoder(4, 16).eval())]


@settings(max_examples=25)
@given(samples=st.integers(17, 400), batch=st.integers(1, 2))
def test_one_code_for_every_sixteen_samples_begun(
    networks: list[tuple[nn.Module, nn.Module]], samples: int, batch: int
) -> None:
    with torch.no_grad():
        for encoder, decoder in networks:
            latent = encoder(torch.randn(batch, 12, samples))
            assert latent.shape == (batch, math.ceil(samples / 16), 4)
            assert decoder(latent).shape == (batch, 12, 16 * math.ceil(samples / 16))


def test_ten_seconds_are_313_codes(networks: list[tuple[nn.Module, nn.Module]]) -> None:
    with torch.no_grad():
        assert [encoder(torch.randn(1, 12, 5000)).shape[1] for encoder, _ in networks] == [313, 313]


def test_authors_networks_have_the_authors_sizes() -> None:
    encoder, decoder = PaperEncoder(4), PaperDecoder(4, 384)
    assert size(encoder) == 30_692
    assert size(encoder) + size(decoder) == 4_170_608
    # Their checkpoint: 73 tensors, 37 of them the encoder's.
    assert (len(encoder.state_dict()), len(decoder.state_dict())) == (37, 36)
    assert {"blocks.0.0.match.weight", "blocks.3.0.inc.b4.weight", "blocks.2.1.weight", "bottleneck.norm.bias"} <= {
        name.removeprefix("leads.0.") for name in encoder.state_dict()
    }
    assert decoder.state_dict()["up.0.weight"].shape == (384, 384, 3)
    assert decoder.state_dict()["final.weight"].shape == (12, 384, 1)


def test_separate_lead_encoders() -> None:
    shared, separate = PaperEncoder(4), PaperEncoder(4, "separate").eval()
    mixing = size(shared.to_code)
    assert size(separate) - mixing == 12 * (size(shared) - mixing)
    x = torch.randn(1, 12, 160)
    swapped = x[:, [1, 0, *range(2, 12)]]
    with torch.no_grad():
        for encoder in separate.leads[1:]:
            encoder.load_state_dict(separate.leads[0].state_dict())
        shared.load_state_dict(
            {name: value for name, value in separate.state_dict().items() if name.startswith(("leads.0.", "to_code"))}
        )
        torch.testing.assert_close(separate(x), shared.eval()(x))
        assert not torch.allclose(separate(x), separate(swapped))


def test_plain_encoder_reads_89_samples_and_no_more(networks: list[tuple[nn.Module, nn.Module]]) -> None:
    x = torch.randn(1, 12, 640, requires_grad=True)
    networks[0][0](x)[0, 20].sum().backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad.abs().sum((0, 1)))[:, 0]
    assert (int(seen[0]), int(seen[-1])) == (16 * 20 - FIELD, 16 * 20 + FIELD)


@pytest.mark.parametrize("kind", [0, 1])
def test_gradients_reach_every_parameter(networks: list[tuple[nn.Module, nn.Module]], kind: int) -> None:
    for network in networks[kind]:
        network.zero_grad()
    encoder, decoder = networks[kind]
    (decoder(encoder(torch.randn(1, 12, 160))) ** 2).mean().backward()
    missing = [
        name
        for network in (encoder, decoder)
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert missing == []
