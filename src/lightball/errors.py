"""The one exception that a user's input can cause."""


class InputError(ValueError):
    """Input that cannot be used; the message is one line for a person.

    It says what was wrong, the value received, what is required and what to do. The command line prints it
    without a traceback and exits with 2.
    """
