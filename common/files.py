"""Writing files, and telling them from others."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file such that at any moment either the old or the new one is there, whole."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)  # a full disk needs the room
        raise
    os.replace(partial, path)


def checksum(facts: Any) -> str:
    """32 hexadecimal digits that tell JSON values from others."""
    return hashlib.sha256(json.dumps(facts, default=list).encode()).hexdigest()[:32]
