"""What a process knows of its launcher, and of the others that the launcher has started."""

import os
import sys
from datetime import timedelta
from typing import Any

ON_CPUS = "ACCELERATE_USE_CPU=true python -m torch.distributed.run --standalone --nproc_per_node 2"

PARENT = os.getppid()  # read first of all, by common.start: a launcher can end at any moment


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun has started this process."""
    return bool({"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"} & os.environ.keys())


def is_one_of_several() -> bool:
    """Whether torchrun, or `accelerate launch --multi_gpu`, has started other processes as well."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_one_for_several() -> bool:
    """Whether `accelerate launch` was asked for several processes, and has started this one alone.

    It does so where there is no GPU, and then leaves the address at which they would have met.
    """
    launched = "ACCELERATE_DYNAMO_BACKEND" in os.environ and not is_one_of_several()
    return launched and "MASTER_PORT" in os.environ


def says_first(message: str) -> bool:
    """Whether no other process of this program has asked about this message before.

    The processes of a program make the same mistake each, and say it once. They know of each other
    by a store, which is the launcher's, or the first process's, which may have ended.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available():
        return True
    try:
        if distributed.is_initialized():
            store = distributed.distributed_c10d._get_default_store()
        elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = distributed.TCPStore(address, port, timeout=timedelta(seconds=5))
        else:
            return True
        return store.add(f"said: {message}", 1) == 1
    except (RuntimeError, KeyError):  # the store has ended with the process that had it
        return True
