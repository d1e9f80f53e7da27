"""The exception for mistakes that a user can cause and mend."""


class UserError(SystemExit):
    """Ends the program with a message and exit status 1, without a traceback.

    The message names the value, the rule that it breaks, and the way out.
    """
