"""Files that are written whole or not at all, keys for caches, and paths without their folders."""

import hashlib
import json
import os
import shlex
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
    """32 hexadecimal digits, a key for JSON values."""
    return hashlib.sha256(json.dumps(facts, default=list).encode()).hexdigest()[:32]


def last_name(word: str) -> str:
    """The last part of a path, since its folders say nothing on another machine.

    Words that are no path, and paths below the working directory, stay as they are. `--option=PATH`
    keeps its option.
    """
    option, equals, value = word.rpartition("=")
    path = Path(value)
    return f"{option}{equals}{path.name}" if path.is_absolute() or ".." in path.parts else word


def shorten_command(command: str) -> str:
    """A command line whose paths are shortened by `last_name`."""
    return shlex.join(map(last_name, shlex.split(command)))
