"""Files that are written whole or not at all, keys for caches, and paths without their folders."""

import codecs
import errno
import hashlib
import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Collection
from itertools import chain, count
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

CHECKSUMS = "SHA256SUMS"  # of the files in a folder, as `sha256sum -c` reads them
# Temporary files of this program: the process that writes one, and a random number.
TEMPORARY = re.compile(r"\.sr-(\d+)-[0-9a-f]{16}\.partial")


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file such that at any moment either the old or the new one is there, whole.

    A link is replaced, not followed.

    Raises:
        OSError: The file cannot be written. The old one is still there.
    """
    temporary = path.with_name(f".sr-{os.getpid()}-{secrets.token_hex(8)}.partial")
    try:
        with open(temporary, "xb") as file:  # never one that is there, nor where a link leads
            file.write(content)
            file.flush()
            flush_to_disk(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise


def flush_to_disk(descriptor: int) -> None:
    """Waits until a file or folder is on the disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise  # the others come from CIFS, for example, for a folder


def unused(path: Path) -> Path:
    """The path, or where something is there the first of `path-2`, `path-3`, ... that is free."""
    names = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(free for free in chain([path], names) if not os.path.lexists(free))


def delete_leftovers(folder: Path) -> None:
    """Deletes temporary files that a killed process of this program has left in a folder."""
    for path in folder.glob(".sr-*.partial"):
        match = TEMPORARY.fullmatch(path.name)
        if match and not path.is_symlink() and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def cannot_write(path: Path, overwrite: bool) -> str:
    """Says why a file should not or cannot be written, before the work for it begins.

    Args:
        path: File, in a folder that may have to be made.
        overwrite: Whether a file that is there may be replaced.

    Returns:
        Rule that is broken, or "".
    """
    if path.is_dir():
        return "is a folder; name a file"
    if os.path.lexists(path) and not overwrite:
        return "exists already; name another, or add --overwrite"
    return cannot_make(path.parent)


def cannot_make(folder: Path) -> str:
    """Says why files cannot be written to a folder, which may have to be made; "" if they can."""
    present = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not present.is_dir():
        return f"is below {present}, which is no folder; name another"
    try:
        with tempfile.TemporaryFile(dir=present) as file:
            file.write(b"0")
            file.flush()
            flush_to_disk(file.fileno())
    except OSError as error:
        return f"cannot be written: {error.strerror}; name another, or see who may write there"
    return ""


def _is_running(process: int) -> bool:
    if process == os.getpid() or os.name != "posix":
        return True  # (elsewhere such a question could end the process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def write_checksums(folder: Path, names: Collection[str] = ()) -> None:
    """Writes checksums of files in a folder, as `find_damage` tests them.

    Args:
        folder: Folder that gets them.
        names: Files. Default: all.
    """
    found = names or {path.name for path in folder.iterdir()} - {CHECKSUMS}
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in sorted(found))
    (folder / CHECKSUMS).write_text(sums)


def find_damage(folder: Path, names: Collection[str] = ()) -> str | None:
    """Says how the files of a folder differ from their checksums; None if they do not.

    Args:
        folder: Folder that has checksums.
        names: Files to test, as far as they have a checksum. Default: all that have one.
    """
    name = CHECKSUMS
    try:
        lines = (folder / name).read_text(errors="replace").splitlines()
        sums = {
            match[2]: match[1]
            for match in (re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines)
            if match
        }
        if not sums or len(sums) < len(lines):
            return f"{name} is not what was written"
        for name, digest in sums.items():
            if (not names or name in names) and _sha256(folder / name) != digest:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error}"
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class JsonFile(NamedTuple):
    """A file of one JSON object a line, some of which may be damaged.

    Attributes:
        lines: Good lines, each once, by the bytes of the line without its end.
        bad: Bytes of the other lines, cut off ones among them.
        cut: Whether the last line is one of these and has no end: its writer was killed.
    """

    lines: dict[bytes, dict[str, Any]]
    bad: list[bytes]
    cut: bool


def read_json_lines(path: Path) -> JsonFile:
    """Reads a file of one JSON object a line, each with a whole number `step`.

    Raises:
        OSError: The file cannot be read.
    """
    lines: dict[bytes, dict[str, Any]] = {}
    bad = []
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    rows = [line.rstrip(b"\r") for line in content.split(b"\n")]
    for line in filter(None, rows):
        try:
            values = json.loads(line.decode())
            if type(values["step"]) is not int:
                raise ValueError
            lines[line] = values
        except (ValueError, TypeError, KeyError, RecursionError):
            bad.append(line)
    return JsonFile(lines, bad, cut=bool(bad) and bad[-1] == rows[-1])


def checksum(facts: Any) -> str:
    """32 hexadecimal digits, a key for JSON values."""
    return hashlib.sha256(json.dumps(facts, default=list).encode()).hexdigest()[:32]


def last_name(word: str) -> str:
    """The last part of a path, since its folders say nothing on another machine.

    Words that are no path, and paths below the working directory, stay as they are. `--option=PATH`
    keeps its option. An address, which may hold a password, is cut as well.
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if "://" in value:
        return f"{option}{equals}{value.partition('?')[0].rstrip('/').rpartition('/')[2]}"
    for path in (Path(value), PureWindowsPath(value)):
        if path.is_absolute() or ".." in path.parts or value.startswith("~"):
            return f"{option}{equals}{path.name}"
    return word


def shorten_command(command: str) -> str:
    """A command line whose paths are shortened by `last_name`."""
    return shlex.join(map(last_name, shlex.split(command)))
