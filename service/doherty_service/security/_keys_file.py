"""The file of keys: read by the server, changed by `doherty keys`."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from doherty_service.process import UnfitFileError, read_file
from doherty_service.security._key import ApiKey

_MOST_BYTES = 16 << 20
"""Some 50,000 keys."""


class KeysFileError(Exception):
    """The file of keys cannot be used; the message is a sentence that says why, and holds nothing of its content."""


class _Content(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    keys: list[ApiKey]


def read_keys(path: Path) -> list[ApiKey]:
    """Reads all keys, in the order in which they were added.

    Raises:
        KeysFileError: the file is not there, cannot be read, or is not a file of keys.
    """
    try:
        keys = _Content.model_validate_json(read_file(path, _MOST_BYTES)).keys
    except OSError as error:
        raise KeysFileError(f"The file of keys {path} cannot be read: {error.strerror}.") from error
    except UnfitFileError as error:
        raise KeysFileError(f"The file of keys {error}.") from None
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, one["loc"])) or "its syntax" for one in error.errors()}))
        # Not the error itself, which quotes what it found.
        raise KeysFileError(f"The file of keys {path} is not one: {where} is wrong.") from None
    for what in ("id", "name"):
        if len({getattr(key, what) for key in keys}) < len(keys):
            raise KeysFileError(f"The file of keys {path} has two keys of one {what}.")
    return keys


@contextmanager
def changing_keys(path: Path) -> Iterator[list[ApiKey]]:
    """The keys as a list to change, which is written when the block ends well; others who want to change them wait.

    The file comes into being with the first key, readable by its owner alone; later its owner and mode stay as they
    are. A reader sees all of the old content or all of the new.

    Raises:
        KeysFileError: the file cannot be read or written.
    """
    real = path.resolve()  # the target of a link is replaced, not the link
    try:
        with _locked(real.parent):
            keys = read_keys(real) if real.exists() else []
            yield keys
            _write(real, _Content(keys=keys).model_dump_json(indent=2, exclude_defaults=True) + "\n")
    except OSError as error:
        raise KeysFileError(f"The file of keys {path} cannot be written: {error.strerror}.") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder, for the file itself is another one after each change."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 0600
    try:
        with suppress(FileNotFoundError):
            # A server that cannot read the new file keeps the old keys, also one that was just revoked.
            replaced = path.stat()
            os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode))
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is a descriptor
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
