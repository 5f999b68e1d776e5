"""A model cut over two processes: half of it in each, whole again at the end, whole on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from heartllm.training.processes import world
from heartllm.training.sharding import Shards, cut_like, optimiser_from_disk, optimiser_to_disk, whole

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")


class Two(nn.Module):
    """Two matrices and a tied one; one process may leave the second out."""

    _no_split_modules = ("Linear",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.output = nn.Embedding(6, 4), nn.Embedding(6, 4)
        self.tied = nn.Embedding(6, 4)
        self.tied.weight = self.table.weight
        self.layer = nn.Linear(4, 4)

    def forward(self, ids: Tensor, with_output: bool) -> dict[str, Tensor]:
        hidden = self.layer(self.table(ids))
        loss = (hidden @ self.tied.weight.T).square().mean()
        return {"loss": loss + self.output(ids).square().mean() if with_output else loss}


def test_a_cut_model_holds_a_share_and_becomes_whole_again(started: Callable[..., list[int]], tmp_path: Path) -> None:
    plain = Two()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        ((plain(torch.arange(6), True)["loss"] + plain(torch.arange(6), False)["loss"]) / 2).backward()
        optimiser.step()

    def work() -> None:
        model = Two()
        weight = model.table.weight.detach().clone()
        shards = Shards(model)
        assert type(model) is not Two
        share = model.table.weight.to_local()  # type: ignore[operator]
        assert share.shape == (3, 4)
        assert torch.equal(share, weight[3 * world().rank :][:3])
        assert torch.equal(cut_like(weight, model.table.weight).to_local(), share)  # type: ignore[operator]
        cut = torch.optim.AdamW(model.parameters(), lr=0.1)
        for step in range(3):
            cut.zero_grad()
            model(torch.arange(6), world().rank == 0)["loss"].backward()
            cut.step()
            if step == 1:  # through the disk and back
                kept = optimiser_to_disk(cut)
                assert {tuple(v["exp_avg"].shape) for v in kept["state"].values()} == {(6, 4), (4, 4), (4,)}
                cut = torch.optim.AdamW(model.parameters(), lr=0.1)
                optimiser_from_disk(cut, kept)
        assert whole(model.output.weight).shape == (6, 4)
        shards.join()
        assert type(model) is Two
        assert type(model.layer) is nn.Linear
        assert model.tied.weight is model.table.weight
        assert not model._forward_hooks
        assert not model.layer._forward_pre_hooks
        model(torch.arange(6), True)["loss"].backward()  # alone, as any model
        torch.save(dict(model.state_dict()), tmp_path / f"{world().rank}.pt")

    assert started(2, work, fsdp=True) == [0, 0]
    for rank in (0, 1):
        for name, value in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(value, plain.state_dict()[name], atol=1e-6, rtol=1e-5, msg=name)
