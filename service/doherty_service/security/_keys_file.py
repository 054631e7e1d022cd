"""The file of keys, which the server reads and `doherty keys` changes."""

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

_MAX_BYTES = 16 << 20
"""Enough for about 50,000 keys."""


class KeysFileError(Exception):
    """The file of keys cannot be used. The message is a sentence that says why, and quotes nothing from the file."""


class _Content(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    keys: list[ApiKey]


def read_keys(path: Path) -> list[ApiKey]:
    """Reads all keys in the order in which they were added.

    Raises:
        KeysFileError: The file does not exist, cannot be read, or is not a file of keys.
    """
    try:
        keys = _Content.model_validate_json(read_file(path, _MAX_BYTES)).keys
    except OSError as error:
        raise KeysFileError(f"The file of keys {path} cannot be read: {error.strerror}.") from error
    except UnfitFileError as error:
        raise KeysFileError(f"The file of keys {error}.") from None
    except ValidationError as error:
        places = ", ".join(sorted({".".join(map(str, detail["loc"])) or "its syntax" for detail in error.errors()}))
        # pydantic's own message would quote the content of the file.
        raise KeysFileError(f"{path} is not a valid file of keys: {places} is wrong.") from None
    for field in ("id", "name"):
        if len({getattr(key, field) for key in keys}) < len(keys):
            raise KeysFileError(f"The file of keys {path} has two keys with the same {field}.")
    return keys


@contextmanager
def changing_keys(path: Path) -> Iterator[list[ApiKey]]:
    """Yields the keys as a list, and writes the changed list at the end of the block unless the block raises.

    Other processes that want to change the file wait. A new file is readable only by its owner; an existing one keeps
    its owner and mode. The file is replaced atomically.

    Raises:
        KeysFileError: The file cannot be read or written.
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
    """Locks the folder. Locking the file would not work, because each change replaces it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    try:
        with suppress(FileNotFoundError):
            # A server that cannot read the new file would keep accepting the old keys, including a revoked one.
            replaced = path.stat()
            os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode))
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - Path.open takes no descriptor
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
