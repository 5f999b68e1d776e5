from __future__ import annotations

import pytest

from heartllm.errors import UsageError
from heartllm.launched import World, left_alone, world_from_environment


def test_the_environment_tells_the_process_its_number() -> None:
    assert world_from_environment({}) == World(0, 1, 0)
    assert world_from_environment({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}) == World(2, 4, 0)
    for wrong in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x", "WORLD_SIZE": "4"}, {"WORLD_SIZE": "0"}):
        with pytest.raises(UsageError, match="do not fit"):
            world_from_environment(wrong)
    openmpi = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert world_from_environment(openmpi) == World(2, 3, 1)
    assert world_from_environment({"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1"}) == World(1, 2, 1)
    assert world_from_environment({**openmpi, "WORLD_SIZE": "1", "RANK": "0"}) == World(0, 1, 0)
    with pytest.raises(UsageError, match="PMI_RANK=2 and PMI_SIZE=2 do not fit"):
        world_from_environment({"PMI_SIZE": "2", "PMI_RANK": "2"})
    alone = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert left_alone(alone)
    assert not left_alone({"ACCELERATE_USE_CPU": "True"})  # one was asked for
    assert not left_alone({**alone, "PMI_SIZE": "2"})
    assert not left_alone({**alone, "ACCELERATE_USE_CPU": "False", "WORLD_SIZE": "2"})
