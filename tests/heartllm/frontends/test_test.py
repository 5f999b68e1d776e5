"""TEST's encoder: shapes, what each position sees, and its way into the language model."""

from __future__ import annotations

import pytest
import torch

from heartllm.errors import DataError
from heartllm.frontends.soft import LinearInput
from heartllm.frontends.test import TEST, CausalBlock, TESTConfig

SMALL = TESTConfig(width=8, channels=6, layers=3)


def encoder(config: TESTConfig = SMALL) -> TEST:
    """One whose BatchNorm has statistics of its own, in evaluation mode."""
    torch.manual_seed(0)
    made = TEST(config).train()
    with torch.no_grad():
        made.embed_windows(torch.randn(16, 12, config.window))
    return made.eval()


def test_ten_seconds_are_313_embeddings_of_the_asked_width() -> None:
    front = encoder()
    values = front.encode(torch.randn(2, 12, 5000))
    assert values.shape == (2, 313, 8) == (2, front.positions, front.width)
    assert values.dtype == torch.float32
    assert not values.requires_grad
    assert front.codes is None
    assert front.bits == pytest.approx(313 * 8 * 16 / 10)
    assert TEST(TESTConfig()).width == 128


@pytest.mark.parametrize("dilation", [1, 4])
def test_a_block_never_looks_ahead(dilation: int) -> None:
    torch.manual_seed(1)
    block = CausalBlock(12, 6, 3, dilation).eval()
    x = torch.randn(1, 12, 40)
    other = x.clone()
    other[..., 25:] = torch.randn(1, 12, 15)
    with torch.no_grad():
        before, after = block(x), block(other)
    torch.testing.assert_close(before[..., :25], after[..., :25])
    assert not torch.allclose(before[..., 25], after[..., 25])
    assert not torch.allclose(before[..., 25 + 2 * dilation], before[..., 24 + 2 * dilation])


def test_future_samples_change_no_earlier_position() -> None:
    front, x = encoder(), torch.randn(1, 12, 800)
    other = x.clone()
    other[..., 400:] += 1.0  # sample 400 is the first of position 25
    before, after = front.encode(x), front.encode(other)
    torch.testing.assert_close(before[:, :25], after[:, :25])
    assert not torch.allclose(before[:, 25], after[:, 25])


def test_a_position_sees_its_window_and_nothing_before() -> None:
    front, x = encoder(), torch.randn(1, 12, 800)
    other = x.clone()
    other[..., :352] += 1.0  # the window of position 25 is samples 352 to 415
    before, after = front.encode(x), front.encode(other)
    torch.testing.assert_close(before[:, 25:], after[:, 25:])
    assert not torch.allclose(before[:, 24], after[:, 24])


def test_windows_of_one_stride_do_not_overlap() -> None:
    front, x = encoder(TESTConfig(width=8, channels=6, layers=2, window=16)), torch.randn(1, 12, 160)
    piece = front.scaling(x)[..., 32:48]
    torch.testing.assert_close(front.encode(x)[:, 2], front.embed_windows(piece).detach())


def test_amplitude_is_kept() -> None:
    front, x = encoder(), torch.randn(1, 12, 160)
    assert not torch.allclose(front.encode(x), front.encode(1.5 * x), rtol=0.01)


def test_gaps_are_refused() -> None:
    x = torch.zeros(1, 12, 160)
    x[0, 3, 7] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        encoder().encode(x)


def test_soft_input_starts_as_the_identity_at_the_size_of_the_rows() -> None:
    values, rows = torch.randn(2, 5, 8), 0.02 * torch.randn(30, 8)
    soft = encoder().soft_input(8)(values, rows)
    torch.testing.assert_close(soft, values * rows.square().mean().sqrt())
    assert encoder().soft_input(16)(values, torch.randn(30, 16)).shape == (2, 5, 16)


def test_linear_input_has_the_size_of_the_rows_and_leaves_them_alone() -> None:
    torch.manual_seed(0)
    rows = (0.3 * torch.randn(50, 64)).requires_grad_()
    soft = LinearInput(32, 64)(torch.randn(4, 100, 32), rows)
    assert float(soft.detach().square().mean().sqrt()) == pytest.approx(0.3, rel=0.15)
    soft.sum().backward()
    assert rows.grad is None


@pytest.mark.parametrize(
    "wrong", [{"window": 8}, {"kernel": 1}, {"temperature": 0.0}, {"text": -1.0}, {"prototypes": 0}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        TESTConfig(**wrong)  # type: ignore[arg-type]
