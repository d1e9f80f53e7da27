"""The terminal: names that do it no harm, and messages on lines of their own beside a bar."""

import io
import logging
import multiprocessing
import os
import re
import sys
import unicodedata
import warnings
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")  # of an object: <_io.BytesIO object at 0x7f...>
JOINERS = "\u200c\u200d"  # invisible, but part of Persian words and of emoji
MARKUP = re.compile(r"[\\`*\[\]|~]")  # Markdown takes a backslash before these
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: object, keep: str = "") -> str:
    r"""Text that acts on no terminal, file or table, and that any of them can hold.

    Names of files and in data sets may hold control characters, which move the cursor or end a
    line, marks that turn the direction of writing, and bytes that are no UTF-8. They become escapes
    like `\x1b`. Addresses of objects, which tell a reader nothing, are left out.

    Args:
        text: Text, or a path.
        keep: Characters that stay, a line end for example.
    """
    text = ADDRESS.sub("", f"{text}")
    if text.isprintable():
        return text
    keep += JOINERS
    return "".join(
        char
        if char.isprintable() or char in keep or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in text
    )


def escape_what_cannot_be_printed() -> None:
    """Makes no name of a file end a program that prints it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # it may be a file on a full disk
                stream.reconfigure(errors="backslashreplace")


def markdown(text: object) -> str:
    """Text that Markdown shows as it is: no link, no HTML, no cell of a table begins in it."""
    escaped = MARKUP.sub(r"\\\g<0>", printable(text))
    return "".join(ENTITIES.get(char, char) for char in escaped)


def say(text: str, file: TextIO | None = None) -> None:
    """Prints a message on lines of its own, above the progress bars, also those of other processes.

    Args:
        text: Message.
        file: Stream. Default: standard output.
    """
    file = file or sys.stdout
    text = printable(text, keep="\n")
    if multiprocessing.parent_process() or os.environ.get("LOCAL_RANK", "0") != "0":
        clear = "\r\x1b[K" if file.isatty() else ""  # the bar of the first process may be there
        file.write(f"{clear}{text}\n")
    else:
        tqdm.write(text, file=file)
    file.flush()


def end_bars() -> None:
    """Ends the bars on the screen, so that the last message of a program has a line of its own."""
    for bar in list(getattr(tqdm, "_instances", [])):
        bar.close()


class _Lines(logging.Handler):
    """Messages of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), sys.stderr)


def show_warnings_beside_bars() -> None:
    """Prints warnings of Python and of libraries by `say`, from here on."""

    def show(message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:
        say(f"{os.path.basename(filename)}:{lineno}: {category.__name__}: {message}", sys.stderr)

    warnings.showwarning = show  # type: ignore[assignment]
    logging.lastResort = _Lines(logging.WARNING)
