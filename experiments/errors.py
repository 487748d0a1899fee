"""The one exception for what a user can put right."""


class UserError(SystemExit):
    """Ends the program with exit status 1 and its message on stderr, without a traceback.

    The message says what was given, what was wanted and what to do; a traceback would bury it.
    """
