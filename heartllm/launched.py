"""What a launcher says about the processes that it started.

`torchrun` and `accelerate launch` say it in RANK and WORLD_SIZE, `mpirun` (also where accelerate calls it) in names of
its own. Training joins such processes (`heartllm.training.processes`), evaluation shares its questions among them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from heartllm.errors import UsageError

# Where launchers say how many processes there are, this one's number, and its number on this machine.
LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "LOCAL_RANK"),  # torchrun, accelerate
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
)


@dataclass(frozen=True)
class World:
    """This process among those of a run: its number, how many there are, its number on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes what all share."""
        return self.rank == 0


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """What the launcher says; a single process where there is none.

    Raises:
        UsageError: if RANK and WORLD_SIZE, or what stands in their place, do not fit each other.
    """
    names = next((names for names in LAUNCHERS if names[0] in environment), LAUNCHERS[0])
    try:
        size = int(environment.get(names[0], "1"))
        rank = int(environment.get(names[1], "0"))
        local = int(environment.get(names[2], str(rank)))
    except ValueError:
        size, rank, local = 0, 0, 0
    if not 0 <= rank < size:
        raise UsageError(
            f"{names[1]}={environment.get(names[1])} and {names[0]}={environment.get(names[0])} do not fit",
            where="environment",
            remedy="Unset both, or start with torchrun or accelerate launch.",
        )
    return World(rank, size, local)


def left_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `accelerate launch --cpu --num_processes N` started this process: of the N it starts one, unless it is
    given an MPI hostfile."""
    several = environment.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in environment
    return several and not any(names[0] in environment for names in LAUNCHERS)
