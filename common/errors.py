"""The exception for mistakes that a user can cause and mend."""

from common.terminal import printable


class UserError(SystemExit):
    """Ends the program with a message and exit status 1, without a traceback.

    The message names the value, the rule that it breaks, and the way out. It may quote names from
    anywhere; what they hold does not act on the terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, keep="\n"))
