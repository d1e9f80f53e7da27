"""How a model came about: `args.json` of a run and its checkpoints."""

import json
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.options import LARGEST

RECORD = "args.json"


def read_record(folder: Path, needed_for: str, *keys: str) -> dict[str, Any]:
    """Reads the `args.json` of a run or of a checkpoint.

    Args:
        folder: Folder of the run or of the checkpoint.
        needed_for: End of the message where there is no record: what cannot be done, and the way
            out.
        keys: What it must hold besides `args`.

    Raises:
        UserError: There is no such record, or something is missing in it.
    """
    path, reason = folder / RECORD, "is not the record of a run, or is damaged"
    try:
        record = json.loads(path.read_text("utf-8-sig"))
        if isinstance(record["args"], dict) and record.keys() >= {*keys}:
            return record
    except FileNotFoundError:
        reason = "is not there"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{path} {reason}, so nobody knows {needed_for}")


def of_steps(steps: int) -> str:
    """` of 1,000`; "" for a run by minutes that has not measured its number of steps yet."""
    return f" of {steps:,}" if steps < LARGEST else ""
