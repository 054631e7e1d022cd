"""Reads the files that settings name."""

import os
import stat
from pathlib import Path


class UnfitFileError(Exception):
    """A file is not one that can be read as a whole; the message says why."""


def read_file(path: Path, most_bytes: int) -> bytes:
    """Reads a regular file of at most `most_bytes`: neither a pipe without a writer nor an endless device blocks it.

    Raises:
        OSError: it is not there or cannot be read.
        UnfitFileError: it is not a regular file, or is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnfitFileError(f"{path} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > most_bytes:
        raise UnfitFileError(f"{path} has more than {most_bytes >> 20} MiB")
    return data
