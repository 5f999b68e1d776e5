"""Rows of ECG tokens: digit rows are sums of level embeddings, opaque rows are free."""

from __future__ import annotations

import itertools

import torch

from heartllm.language.rows import CodeRows


def test_a_digit_row_is_the_sum_of_its_levels() -> None:
    levels = (3, 4, 2)
    rows = CodeRows(levels, 8, "digits", 0.5)
    table = rows()
    assert table.shape == (2 + 24, 8)
    for code, (c, b, a) in enumerate(itertools.product(range(2), range(4), range(3))):  # least significant digit first
        wanted = rows.level[a] + rows.level[3 + b] + rows.level[3 + 4 + c]
        torch.testing.assert_close(table[2 + code], wanted)
    assert torch.equal(table[:2], rows.special)


def test_every_code_teaches_every_code_that_shares_a_digit() -> None:
    rows = CodeRows((3, 4, 2), 8, "digits")
    rows()[2].sum().backward()
    assert rows.level.grad is not None
    assert rows.level.grad.any(1).nonzero().flatten().tolist() == [0, 3, 7]


def test_opaque_rows_are_independent_parameters() -> None:
    rows = CodeRows((3, 4, 2), 8, "opaque")
    assert sum(p.numel() for p in rows.parameters()) == (2 + 24) * 8
    rows()[5].sum().backward()
    assert rows.code.grad is not None
    assert rows.code.grad.any(1).nonzero().flatten().tolist() == [3]


def test_both_kinds_start_at_the_backbones_deviation() -> None:
    for kind in ("digits", "opaque"):
        torch.manual_seed(0)
        spread = CodeRows((6, 6, 6, 6), 64, kind, 0.3)()[2:].detach().std()  # type: ignore[arg-type]
        assert 0.2 < float(spread) < 0.4
