"""The beginning of every script, before its slow imports: a script imports this module first.

- Ctrl-C ends a script with one line, also while it imports PyTorch or decodes pictures.
- A script that `accelerate launch` or torchrun has started ends with its launcher.
- A training whose memory runs out says what to do.

Nothing of it happens in a program of somebody else's, which imports a script for its network.
"""

import os
import signal
import sys
from types import FrameType, TracebackType

from common.launcher import PARENT, is_launched
from common.signals import end_by

PR_SET_PDEATHSIG = 1  # Linux: the signal to get when the parent ends


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises a KeyboardInterrupt. In an import, which could swallow it, and at exit, ends at once.

    At exit there is no frame of the script any more. (Python's own function runs `python -m`.)
    """
    outermost = ""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end_by(number, "stopped.")
        outermost, frame = frame.f_code.co_name, frame.f_back
    if outermost not in ("<module>", "_run_module_as_main"):
        end_by(number, "stopped.")
    raise KeyboardInterrupt


def _print(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints what ends the program: a line for Ctrl-C, a traceback for a fault of this program."""
    if issubclass(kind, KeyboardInterrupt):
        end_by(signal.SIGINT, "stopped.")
    sys.__excepthook__(kind, error, trace)
    if "common.training.run" in sys.modules:
        from common.device import is_out_of_memory

        if is_out_of_memory(error):
            print(
                "The memory ran out. Use a smaller --batch_size or --patch_size, or the same batch "
                "in parts: --gradient_accumulation_steps, whose number auto finds (not of SRGAN).",
                file=sys.stderr,
            )


def _end_with_launcher() -> None:
    """Makes this process get SIGTERM when its launcher ends; until a run begins, that ends it.

    Raises:
        SystemExit: The launcher has ended already.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != PARENT or _is_orphan():
        print("The launcher has ended, so this script does not begin.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)


def _is_orphan() -> bool:
    """Whether the launcher has ended before this process could ask for its number.

    `accelerate launch` has the session of its children, also as process 1 of a container. Who takes
    its orphans (init, a container's or a user's manager) leads a session of its own. torchrun's
    children have other sessions, but do not begin without torchrun.
    """
    if os.name != "posix" or "TORCHELASTIC_RUN_ID" in os.environ:
        return False
    try:
        session = os.getsid(PARENT)
    except ProcessLookupError:
        return True
    return session in (0, PARENT) and session != os.getsid(0)


def _is_imported_by_program() -> bool:
    """Whether the module that imports this one is the program itself, and not a library."""
    frame: FrameType | None = sys._getframe(2)  # below this function and this module
    while frame and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"] == "__main__"


if _is_imported_by_program():
    sys.excepthook = _print
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # not ignored, nobody else's
        signal.signal(signal.SIGINT, _interrupt)
    if is_launched():
        _end_with_launcher()
