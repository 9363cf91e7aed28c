"""The one exception that a user's input can cause, and the reason of another in one line."""


class InputError(ValueError):
    """Input that cannot be used; the message is one line for a person.

    It says what was wrong, the value received, what is required and what to do. The command line prints it
    without a traceback and exits with 2.
    """


def reason_of(error: BaseException) -> str:
    """The first line of an exception's message, or its type where it has none; for messages of :class:`InputError`."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
