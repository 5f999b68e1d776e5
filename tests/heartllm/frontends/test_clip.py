"""The CLIP-style encoder: shapes, the pooled embedding, and its way into the language model."""

from __future__ import annotations

import pytest
import torch

from heartllm.errors import CheckpointError, DataError
from heartllm.frontends.clip import AttentionPool, BasicBlock, Clip, ClipConfig

SMALL = ClipConfig(channels=2, blocks=1, embedding=8, heads=2, text_width=6)


def encoder(config: ClipConfig = SMALL) -> Clip:
    torch.manual_seed(0)
    return Clip(config).eval()


def test_ten_seconds_are_313_positions_before_pooling() -> None:
    front = encoder()
    values = front.encode(torch.randn(2, 12, 5000))
    assert values.shape == (2, 313, 16) == (2, front.positions, front.width)
    assert values.dtype == torch.float32
    assert not values.requires_grad
    assert Clip(ClipConfig()).width == 128


def test_as_many_blocks_and_strides_as_resnet_18() -> None:
    blocks = [layer for layer in Clip(ClipConfig()).network.layers if isinstance(layer, BasicBlock)]
    convolutions = [block.body[0] for block in blocks]
    assert [c.stride[0] for c in convolutions] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert [c.out_channels for c in convolutions] == [16, 16, 32, 32, 64, 64, 128, 128]


def test_embeddings_have_norm_one_and_text_features_their_own_scale() -> None:
    front = encoder()
    ecg, text = front.embed(torch.randn(3, 12, 5000)), front.embed_text(torch.randn(4, 6))
    assert ecg.shape == (3, 8)
    assert text.shape == (4, 8)
    for found in (ecg, text):
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(found)))
    features = torch.randn(4, 6)
    front.text_centre.fill_(2.0)
    front.text_spread.fill_(3.0)
    moved = front.embed_text(3.0 * features + 2.0)
    front.text_centre.zero_()
    front.text_spread.fill_(1.0)
    torch.testing.assert_close(moved, front.embed_text(features))


def test_pooling_is_attention_of_a_token_over_the_positions() -> None:
    """Against torch's functions written out, head by head."""
    torch.manual_seed(2)
    pool = AttentionPool(5, 8, 2).eval()
    x = torch.randn(3, 5, 8)
    sequence = torch.cat([pool.token.expand(3, -1, -1), x], 1) + pool.place
    query, key, value = (
        sequence @ pool.attention.in_proj_weight[8 * i : 8 * i + 8].T + pool.attention.in_proj_bias[8 * i : 8 * i + 8]
        for i in range(3)
    )
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.softmax(query[:, :1, part] @ key[..., part].transpose(1, 2) / 2.0, -1)
        heads.append(weights @ value[..., part])
    expected = pool.out(pool.attention.out_proj(torch.cat(heads, -1)))[:, 0]
    torch.testing.assert_close(pool(x), expected)


def test_short_signals_are_pooled_too() -> None:
    assert encoder().embed(torch.randn(1, 12, 1000)).shape == (1, 8)


def test_the_map_is_standardised_by_channel() -> None:
    front, x = encoder(), torch.randn(1, 12, 800)
    plain = front.encode(x)
    front.centre.fill_(0.5)
    front.spread.fill_(4.0)
    torch.testing.assert_close(front.encode(x), (plain - 0.5) / 4.0)


def test_gaps_and_foreign_text_features_are_refused() -> None:
    x = torch.zeros(1, 12, 160)
    x[0, 3, 7] = float("inf")
    for call in (encoder().encode, encoder().embed):
        with pytest.raises(DataError, match="NaN or infinite"):
            call(x)
    with pytest.raises(DataError, match="width 7"):
        encoder().embed_text(torch.zeros(1, 7))


def test_the_text_side_is_remembered_with_the_weights() -> None:
    front = encoder()
    front.mark_text("one")
    other = Clip(SMALL)
    other.load_state_dict(front.state_dict())
    other.check_text("one")
    with pytest.raises(CheckpointError, match="--text"):
        other.check_text("two")


def test_soft_input_is_linear_in_the_values() -> None:
    front, rows = encoder(), torch.randn(30, 10)
    soft = front.soft_input(10)
    first, second = torch.randn(1, 4, 16), torch.randn(1, 4, 16)
    assert soft(first, rows).shape == (1, 4, 10)
    torch.testing.assert_close(soft(first + second, rows), soft(first, rows) + soft(second, rows))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"temperature": 0.0}, {"blocks": 0}, {"dropout": 1.0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        ClipConfig(**wrong)  # type: ignore[arg-type]
