"""Files that are written whole or not at all, keys for caches, and paths without their folders."""

import codecs
import errno
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from common.errors import UserError
from common.tables import enumerate_first

CHECKSUMS = "SHA256SUMS"  # of the files in a folder, as `sha256sum -c` reads them
# Temporary files of this program: the process that writes one, and a random number.
TEMPORARY = re.compile(r"\.sr-(\d+)-[0-9a-f]{16}\.partial")
_OURS: set[str] = set()  # names of the temporary files of this process


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file such that at any moment either the old or the new one is there, whole.

    A link is replaced, not followed.

    Raises:
        OSError: The file cannot be written. The old one is still there.
    """
    replace_files({path: content})


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Writes files as `replace_file` does, none of them before there is room for all.

    Raises:
        OSError: A file cannot be written.
    """
    temporaries = {path: _temporary(path) for path in contents}
    try:
        for path, temporary in temporaries.items():
            with open(temporary, "xb") as file:  # never one that is there, nor where a link leads
                file.write(contents[path])
                file.flush()
                flush_to_disk(file.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except BaseException:
        for temporary in temporaries.values():
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


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is one that a killed process of this program has left."""
    match = TEMPORARY.fullmatch(path.name)
    if match is None or path.is_symlink() or path.name in _OURS:
        return False
    # In a container that starts again, every start has the same number.
    return int(match[1]) == os.getpid() or not _is_running(int(match[1]))


def delete_leftovers(folder: Path) -> int:
    """Deletes what killed processes of this program have left in a folder, and counts it."""
    found = [path for path in folder.glob(".sr-*.partial") if is_leftover(path)]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


def cannot_fill(folder: Path) -> str:
    """Says why `filled_folder` cannot make a folder, before the work for it begins; "" if it can.

    It must be new or empty; what a killed process of this program has left does not count.
    """
    if reason := cannot_make(folder):
        return reason
    try:
        others = os.listdir(folder) if folder.exists() else []
    except OSError as error:
        return f"cannot be read: {error.strerror}; name another, or see who may read it"
    others = [name for name in others if not is_leftover(folder / name)]
    if any(TEMPORARY.fullmatch(name) for name in others):
        return "is being written by another process; wait for it, or name another"
    if others:
        return f"is not empty ({enumerate_first(sorted(others), 3)}); name another, or empty it"
    return ""


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder for files that all move to `folder` when they are whole, or do not at all.

    Its name is a temporary one, below `folder`. After a kill the next call clears it away.

    Raises:
        UserError: The files cannot be written, for which there is an OSError; nothing is left.
    """
    made, temporary = not folder.exists(), _temporary(folder / "folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if delete_leftovers(folder):
            print(f"Removed what a start that was killed had left in {folder}.")
        temporary.mkdir()
        yield temporary
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                flush_to_disk(file.fileno())
        for path in sorted(temporary.iterdir()):
            os.replace(path, folder / path.name)
    except KeyboardInterrupt:
        print(f"Stopped. Nothing is kept in {folder}.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else f"{error}"
        raise UserError(
            f"Cannot write to {folder}: {reason}. Nothing of it is kept. Make room, or name "
            "another folder; the same command then does it anew."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if made:
            with suppress(OSError):  # it holds the files, if all went well
                folder.rmdir()


def _temporary(path: Path) -> Path:
    """Name of ours for a temporary file or folder beside a path."""
    name = f".sr-{os.getpid()}-{secrets.token_hex(8)}.partial"
    _OURS.add(name)
    return path.with_name(name)


def cannot_write(path: Path, overwrite: bool) -> str:
    """Says why a file should not or cannot be written, before the work for it begins.

    Args:
        path: File, in a folder that may have to be made.
        overwrite: Whether a file that is there may be replaced.

    Returns:
        Rule that is broken, or "".
    """
    return _is_taken(path, overwrite) or cannot_make(path.parent)


def cannot_write_any(paths: Collection[Path], overwrite: bool) -> str:
    """Says for many files, in a few folders, what `cannot_write` says for one, after its name.

    Each folder is tried once, since a trial waits for the disk.
    """
    for path in paths:
        if reason := _is_taken(path, overwrite):
            return f"{path} {reason}"
    for folder, path in {path.parent: path for path in paths}.items():
        if reason := cannot_make(folder):
            return f"{path} {reason}"
    return ""


def _is_taken(path: Path, overwrite: bool) -> str:
    if path.is_dir():
        return "is a folder; name a file"
    if os.path.lexists(path) and not overwrite:
        return "exists already; name another, or add --overwrite"
    return ""


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
    if os.name != "posix":
        return True  # (such a question could end the process there)
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
