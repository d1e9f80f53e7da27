"""The exception for mistakes that a user can cause and mend."""

from common.launcher import says_first
from common.terminal import printable


class UserError(SystemExit):
    """Ends the program with a message and exit status 1, without a traceback.

    The message names the value, the rule that it breaks, and the way out. It may quote names from
    anywhere; what they hold does not act on the terminal.
    """

    def __init__(self, message: str) -> None:
        self._code: str | int | None = None
        super().__init__(printable(message, keep="\n"))

    @property
    def code(self) -> str | int:  # type: ignore[override]
        """What Python prints at the end, or 1 where another process has said the same."""
        if self._code is None:
            self._code = f"{self}" if says_first(f"{self}") else 1
        return self._code
