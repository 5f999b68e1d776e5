"""A model cut over the processes of a launcher: PyTorch's FSDP (`fully_shard`; Zhao et al., VLDB 2023).

Each process keeps its share of every weight, gradient and optimiser state; a decoder layer is whole while it computes,
and no longer. What goes to disk is whole, as from any other run, so a run may go on cut or not.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn


def wanted() -> bool:
    """Whether the launcher asks for FSDP, as `accelerate launch --use_fsdp` does."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def whole(value: Tensor) -> Tensor:
    """A tensor that may be cut over the processes -> all of it, in every process; all have to ask."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def cut_like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, the same in every process -> cut over the processes as `target` is."""
    if not hasattr(target, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    there: Any = target
    return distribute_tensor(value.to(target.device), there.device_mesh, there.placements, src_data_rank=None)


def optimiser_to_disk(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state dictionary with whole tensors; all processes have to ask."""
    state = optimiser.state_dict()
    return {**state, "state": {key: {k: _whole(v) for k, v in kept.items()} for key, kept in state["state"].items()}}


def _whole(value: Any) -> Any:
    return whole(value) if isinstance(value, Tensor) else value


def optimiser_from_disk(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads what `optimiser_to_disk` gave; moments are cut as their weights are."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]

    def cut(value: Any, weight: Tensor) -> Any:
        return cut_like(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value

    kept = {key: {k: cut(v, weights[key]) for k, v in values.items()} for key, values in state["state"].items()}
    optimiser.load_state_dict({**state, "state": kept})


class Shards:
    """Cuts `model` in place, until `join`. A cut model has to be called, forward and backward, by all processes.

    Args:
        model: on its device. Decoder layers (what transformers says may not be split) are cut each by itself, all else
            together.
    """

    def __init__(self, model: nn.Module) -> None:
        from torch.distributed.fsdp import fully_shard

        self.model = model
        # Cutting replaces weights, adds hooks and changes classes; this is what to go back to.
        self.before = [(part, type(part), _without_weights(part)) for part in model.modules()]
        model.register_forward_hook(_with_all_weights)
        device = next(model.parameters()).device.type
        mesh = distributed.device_mesh.init_device_mesh(device, (distributed.get_world_size(),))
        layers = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
        for part, kind, _ in self.before:
            if kind.__name__ in layers:
                fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)

    @torch.no_grad()
    def join(self) -> None:
        """Makes the model whole again in every process, on the CPU, as it was built; all have to ask."""
        joined: dict[int, nn.Parameter] = {}  # weights that two modules share stay shared
        for part in self.model.modules():
            reshard = getattr(part, "reshard", None)
            if reshard is not None:
                reshard()
        for part, kind, kept in self.before:
            weights: dict[str, nn.Parameter | None] = {}
            for name, weight in part._parameters.items():
                if weight is not None and id(weight) not in joined:
                    joined[id(weight)] = nn.Parameter(whole(weight).cpu(), requires_grad=weight.requires_grad)
                weights[name] = None if weight is None else joined[id(weight)]
            training = part.training
            part.__class__ = kind
            part.__dict__.clear()
            part.__dict__.update(kept, _parameters=weights, training=training)


def _with_all_weights(model: nn.Module, given: object, output: Any) -> Any:
    """Lets a loss depend on all weights outside the layers, if only by nothing: a part of a batch may hold no answer or
    no ECG and so leave some out, and processes whose gradients are not of the same weights cannot exchange them."""
    if isinstance(output, dict) and "loss" in output:
        here = [weight for weight in model.parameters() if weight.requires_grad and not hasattr(weight, "full_tensor")]
        return {**output, "loss": output["loss"] + 0.0 * torch.stack([weight.sum() for weight in here]).sum()}
    return output


def _without_weights(part: nn.Module) -> dict[str, Any]:
    """A module's attributes but its weights; tables of hooks and buffers are copied, as they are changed in place."""
    return {
        name: copy.copy(value) if isinstance(value, dict) else value
        for name, value in part.__dict__.items()
        if name != "_parameters"
    }


@contextmanager
def without_exchange(trained: nn.Module) -> Iterator[None]:
    """Gradients add up inside, and are not exchanged."""
    cut: Any = trained
    cut.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        cut.set_requires_gradient_sync(True)
