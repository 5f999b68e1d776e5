"""Training over the processes that `accelerate launch` or `torchrun` started: one batch, cut into parts.

The batch of a step, and all that is drawn for its rows, is a function of (seed, step). Every process draws the whole of
it and computes its own parts, each weighted by what it counts (answer tokens, codes, findings) over what the batch
counts, so that parts sum to the batch: the loss curve does not depend on how many processes there are.

Gradients are averaged by PyTorch's DDP, or by FSDP (`heartllm.training.sharding`). With a single process every function
here returns what it is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import distributed, nn

from heartllm.errors import HeartLLMError, UsageError
from heartllm.launched import World, left_alone, world_from_environment
from heartllm.training import sharding

T = TypeVar("T")
PATIENCE = timedelta(hours=24)  # while process 0 reads waveforms; a launcher ends those whose peer has died at once


class ProcessLost(HeartLLMError):
    """Another process of this run has ended; it, or the launcher, has said why."""


@dataclass(frozen=True)
class Part:
    """One of `count` parts of a step's batch: what is computed at once."""

    number: int = 0
    count: int = 1

    def of(self, rows: int) -> slice:
        """Its rows of a batch; sizes of parts differ by one at most."""
        return slice(rows * self.number // self.count, rows * (self.number + 1) // self.count)

    def seed(self, *numbers: int) -> None:
        """Makes dropout a function of these numbers and the part, whichever process computes it. A batch in one part
        draws on from where the generator stands."""
        if self.count > 1:
            torch.manual_seed(int(np.random.SeedSequence((*numbers, self.number)).generate_state(1)[0]))


def parts(accumulate: int, batch: int, where: str) -> list[Part]:
    """The parts of this process, where a batch of `batch` rows is cut into `accumulate` or, for each process to have
    equally many, a few more.

    Raises:
        UsageError: if that would be more parts than rows.
    """
    here = world()
    count = -(-max(1, accumulate) // here.size) * here.size
    if count > 1 and batch == 1:
        remedy = "Start one process, and write accumulate = 1."
        raise UsageError("compares all items of a batch, and cannot be trained in parts", where=where, remedy=remedy)
    if count > max(1, batch):
        raise UsageError(
            f"a batch of {batch} cannot be cut into {count} parts ({here.size} processes, accumulate = {accumulate})",
            where=where,
            remedy="Raise batch, lower accumulate, or start fewer processes.",
        )
    return [Part(number, count) for number in range(here.rank, count, here.size)]


def world() -> World:
    """This process among those that were joined."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World()
    return World(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Joins the processes of a launcher and gives this one's device: of "cuda", each takes a GPU of its own.

    Raises:
        UsageError: if the launcher's processes and the device do not fit each other.
        ProcessLost: when a message fails because another process has ended.
    """
    here = world_from_environment()
    if left_alone():
        remedy = "Give it --multi_gpu in place of --cpu, which starts several on a CPU, too."
        raise UsageError("has started one process of several", where="accelerate launch --cpu", remedy=remedy)
    if here.size == 1:
        yield device
        return
    own = _own_device(device, here)
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        remedy = "Start with accelerate launch or torchrun, or set MASTER_ADDR and MASTER_PORT."
        raise UsageError("the launcher does not say where process 0 is", where="environment", remedy=remedy)
    backend = "gloo" if own == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        distributed.init_process_group(backend, rank=here.rank, world_size=here.size, timeout=PATIENCE)
        yield own
        wait()
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not _of_messages(error):
            raise
        raise ProcessLost(
            f"another of the {here.size} processes has ended",
            remedy="See its own message, or the launcher's; the same command continues what was saved.",
        ) from None


def _own_device(device: str, here: World) -> str:
    if device == "cpu":
        return device
    if device != "cuda":
        remedy = "Write --device cuda: each process takes a GPU of its own."
        raise UsageError(
            f"{device} is one device, and there are {here.size} processes", where="--device", remedy=remedy
        )
    there = torch.cuda.device_count()
    if here.local_rank >= there:
        remedy = f"Start {there} processes on this machine." if there else "Write --device cpu."
        raise UsageError(f"this machine has {there} GPUs and more processes", where="--device cuda", remedy=remedy)
    torch.cuda.set_device(here.local_rank)
    return f"cuda:{here.local_rank}"


def _of_messages(error: RuntimeError) -> bool:
    """Whether a message between processes failed, not a computation."""
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl"))


def leads() -> bool:
    """Whether this process is the one that writes what all share."""
    return world().leads


def say(line: str) -> None:
    """Prints it once, not once a process."""
    if leads():
        print(line)


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Each flag, set where it is set in any process."""
    if world().size == 1:
        return flags
    told = torch.tensor(flags, dtype=torch.int32)
    distributed.all_reduce(told, distributed.ReduceOp.MAX)
    return tuple(bool(flag) for flag in told)


def wait() -> None:
    """Until all processes are here."""
    any_of(False)


def total(values: Mapping[str, float]) -> dict[str, float]:
    """The sum of each value over all processes, which have the same names in the same order."""
    if world().size == 1:
        return dict(values)
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    distributed.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in process 0, which alone calls it; the others wait for a copy."""
    if world().size == 1:
        return make()
    box = [make() if leads() else None]
    distributed.broadcast_object_list(box)
    return box[0]  # type: ignore[return-value]


@contextmanager
def first() -> Iterator[None]:
    """Process 0 goes through the body before the others do, which then find what it has written."""
    if not leads():
        wait()
    yield
    if leads():
        wait()


def replicated(model: nn.Module) -> nn.Module:
    """`model` behind DDP, which averages gradients over the processes; itself where FSDP does, or where there is one
    process only."""
    if world().size == 1 or sharding.wanted():
        return model
    # A part may hold no answer or no finding, and so leave parameters out that another part trains.
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)


def last_of(trained: nn.Module, part: Part, own: list[Part]) -> AbstractContextManager[object]:
    """Inside, gradients are exchanged only if this is the last of a process's own parts of the step."""
    if part is own[-1] or world().size == 1:
        return nullcontext()
    if isinstance(trained, nn.parallel.DistributedDataParallel):
        return trained.no_sync()
    return sharding.without_exchange(trained)
