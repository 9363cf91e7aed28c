"""The one exception that a user's input can cause, the one of a spent time budget, and another's reason in one line."""


class InputError(ValueError):
    """Input that cannot be used; the message is one line for a person.

    It says what was wrong, the value received, what is required and what to do. The command line prints it
    without a traceback and exits with 2.
    """


class OutOfTime(Exception):  # noqa: N818  nothing went wrong
    """The time budget is spent. What was finished is stored, and the same call goes on from there.

    The message is one line for a person: how far it came.
    """


def reason_of(error: BaseException) -> str:
    """The first line of an exception's message, or its type where it has none; for messages of :class:`InputError`."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
