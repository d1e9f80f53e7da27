"""What a process knows of its launcher, and of the others that the launcher has started."""

import os
import sys
from typing import Any

PARENT = os.getppid()  # read first of all, by common.start: a launcher can end at any moment


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun has started this process."""
    return bool({"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"} & os.environ.keys())


def says_first(message: str) -> bool:
    """Whether no other process of this program has asked about this message before.

    The processes of a program make the same mistake each, and say it once. Without torchrun or
    `accelerate launch` they know of each other by the first process alone, which may have ended.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    launched = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not launched or distributed is None or not distributed.is_initialized():
        return True
    store = distributed.distributed_c10d._get_default_store()
    return store.add(f"said: {message}", 1) == 1
