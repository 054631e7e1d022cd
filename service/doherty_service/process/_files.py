"""Reads files that are named in settings."""

import os
import stat
from pathlib import Path


class UnfitFileError(Exception):
    """A file is too large or not a regular file. The message says which."""


def read_file(path: Path, max_bytes: int) -> bytes:
    """Reads a regular file of at most `max_bytes`. It refuses pipes and devices, which could block or never end.

    Raises:
        OSError: The file does not exist or cannot be read.
        UnfitFileError: It is not a regular file, or it is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnfitFileError(f"{path} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise UnfitFileError(f"{path} has more than {max_bytes >> 20} MiB")
    return data
