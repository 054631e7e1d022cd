"""Prepares the process, and describes exceptions."""

import os

_MAX_CHARACTERS = 300


def prepare_process() -> None:
    """Opens closed standard streams, and clears the owner's bits of the umask.

    Otherwise a connection could get the descriptor of standard error, and its peer what libraries write there. With a
    umask of 0777, the server could not use the files that it creates.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is `descriptor`
    os.umask(os.umask(0o077) & 0o077)


def describe(error: BaseException) -> str:
    """Describes an unexpected error for use within a sentence: its type and the first line of its message."""
    message = (str(error).splitlines() or [""])[0].strip().rstrip(".")[:_MAX_CHARACTERS]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
