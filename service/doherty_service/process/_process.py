"""Makes up for what whoever started the process has left out."""

import os


def prepare_process() -> None:
    """Opens the standard streams that are closed, and lets the umask take nothing from the owner.

    A connection that got the descriptor of standard error would be sent what libraries write there; and with a umask of
    0777 the server could not use the files that it makes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    os.umask(os.umask(0o077) & 0o077)


def describe(error: BaseException) -> str:
    """An error that nobody foresaw, in a few words for a sentence: its kind, and the first line of what it says."""
    said = (str(error).splitlines() or [""])[0].strip().rstrip(".")[:_MOST_CHARACTERS]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


_MOST_CHARACTERS = 300
