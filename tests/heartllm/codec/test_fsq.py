"""Finite scalar quantisation: a bijection between codes, digits and values, and the published bounding functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heartllm.codec.fsq import FSQ

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)
FORMS = ("tanh", "sigmoid")
REALS = st.floats(-8, 8, width=32)


def published(z: np.ndarray, levels: int) -> np.ndarray:
    """The paper's quantiser in double precision: round(L / 2 tanh z), moved by half a step where L is even.

    The offset is undone inside tanh by artanh, as the paper's author corrected the printed tan, so that 0 stays 0.
    """
    half = (levels - 1) * 1.001 / 2
    offset = 0.5 * (levels % 2 == 0)
    return half * np.tanh(z + math.atanh(offset / half)) - offset


@given(levels=LEVELS, form=st.sampled_from(FORMS))
def test_every_code_survives_digits_and_values(levels: tuple[int, ...], form: str) -> None:
    fsq = FSQ(levels, form)  # type: ignore[arg-type]
    index = torch.arange(fsq.codes)
    digits = fsq.index_to_digits(index)
    assert fsq.codes == math.prod(levels)
    assert digits.dtype == torch.int64
    assert (digits >= 0).all()
    assert (digits < torch.tensor(levels)).all()
    assert torch.equal(fsq.digits_to_index(digits), index)
    assert len(torch.unique(fsq.values(index), dim=0)) == fsq.codes


@given(levels=LEVELS)
def test_digits_are_mixed_radix_least_significant_first(levels: tuple[int, ...]) -> None:
    index = math.prod(levels) - 1 - levels[0] // 2
    rest, expected = index, []
    for level in levels:
        rest, digit = divmod(rest, level)
        expected.append(digit)
    assert FSQ(levels).index_to_digits(torch.tensor(index)).tolist() == expected


@given(levels=LEVELS, form=st.sampled_from(FORMS), data=st.data())
def test_forward_agrees_with_its_inverse(levels: tuple[int, ...], form: str, data: st.DataObject) -> None:
    row = st.lists(REALS, min_size=len(levels), max_size=len(levels))
    z = torch.tensor(data.draw(st.lists(row, min_size=1, max_size=6)), dtype=torch.float32)
    fsq = FSQ(levels, form)  # type: ignore[arg-type]
    values, index = fsq(z)
    assert index.dtype == torch.int64
    assert index.shape == z.shape[:-1]
    assert (index >= 0).all()
    assert (index < fsq.codes).all()
    torch.testing.assert_close(values, fsq.values(index), atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", [2, 3, 5, 6, 8])
def test_tanh_form_is_the_published_one(levels: int) -> None:
    z = np.linspace(-4, 4, 1601)
    bounded = published(z, levels)
    clear = np.abs(bounded - np.floor(bounded) - 0.5) > 1e-4  # rounding of what is not on the border between two levels
    values, _ = FSQ((levels,))(torch.from_numpy(z[:, None]))
    np.testing.assert_allclose(values[clear, 0], np.round(bounded[clear]) / (levels // 2), atol=1e-6)
    assert clear.sum() > 1500
    assert len(np.unique(values)) == levels
    assert float(FSQ((levels,))(torch.zeros(1, 1))[0]) == 0


def test_sigmoid_form_is_that_of_the_released_code() -> None:
    z = torch.linspace(-7, 7, 997)
    values, index = FSQ((6, 6, 6, 6), "sigmoid")(z[:, None].expand(-1, 4))
    torch.testing.assert_close(values[:, 0], torch.round(5 * torch.sigmoid(z)) / 5)
    assert torch.equal(index, (torch.round(5 * torch.sigmoid(z)).long()) * (1 + 6 + 36 + 216))
    assert {0, 1295} <= set(index.tolist())


def test_gradient_passes_rounding_straight_through() -> None:
    z = torch.linspace(-2, 2, 41, dtype=torch.float32)[:, None].requires_grad_()
    FSQ((6,))(z)[0].sum().backward()
    half = 5 * 1.001 / 2
    slope = half * (1 - np.tanh(z.detach().numpy() + math.atanh(0.5 / half)) ** 2) / 3
    np.testing.assert_allclose(z.grad, slope, rtol=1e-4, atol=1e-6)

    z.grad = None
    FSQ((6,), "sigmoid")(z)[0].sum().backward()
    s = torch.sigmoid(z.detach())
    torch.testing.assert_close(z.grad, s * (1 - s))


def test_half_precision_input_names_all_codes() -> None:
    """A bfloat16 sum of digits would merge codes; indices are computed in integers."""
    fsq = FSQ()
    digits = fsq.index_to_digits(torch.arange(1296))
    assert torch.equal(fsq.digits_to_index(digits.bfloat16()), torch.arange(1296))
    assert fsq(torch.zeros(2, 3, 4, dtype=torch.bfloat16))[0].dtype == torch.float32
