"""The private folder of llama.cpp's listener, which is a Unix socket."""

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from doherty_engine._errors import EngineSetupError

SOCKET = "llama.sock"
"""The file name of the socket."""

_PREFIX = "doherty-"
_FOLDER_NAME = re.compile(r"doherty-[a-z0-9_]{8}")
"""The names that `mkdtemp` generates from the prefix."""

_MAX_PATH_BYTES = 103
"""The longest path of a Unix socket: 107 bytes on Linux, 103 on macOS."""

_START_SECONDS = 60.0
"""A folder without a socket counts as stale only after this time, because a starting server has no socket yet."""


def make_socket_folder() -> Path:
    """Creates a folder that only this user can enter, and removes the folders of servers that were killed.

    It is created in TMPDIR, or in /tmp or /dev/shm if TMPDIR is too long for a socket's path or not writable.

    Raises:
        EngineSetupError: It cannot be created in any of these.
    """
    reasons: list[str] = []
    for parent in dict.fromkeys(_parents()):
        if len(os.fsencode(parent / "doherty-12345678" / SOCKET)) > _MAX_PATH_BYTES:
            reasons.append(f"{parent} is too long for a socket's path")
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        _remove_stale_folders(parent)
        return folder
    raise EngineSetupError(
        "The engine llamacpp needs a folder for a Unix socket; set TMPDIR to a writable folder with a short path "
        f"({'; '.join(reasons)})."
    )


def remove_socket_folder(folder: Path) -> None:
    """Removes the folder and its socket; leaves a folder with other files in it."""
    with suppress(OSError):
        (folder / SOCKET).unlink(missing_ok=True)
        folder.rmdir()


def _parents() -> Iterator[Path]:
    with suppress(FileNotFoundError):  # raised if none of the usual folders is writable
        yield Path(tempfile.gettempdir()).absolute()
    yield Path("/tmp")  # noqa: S108 - the folder created in it is private
    yield Path("/dev/shm")  # noqa: S108 - as above; containers have it even if their root is read-only


def _remove_stale_folders(parent: Path) -> None:
    """Removes the folders of servers that no longer run."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _FOLDER_NAME.fullmatch(entry.name) and _is_stale(entry):
                remove_socket_folder(Path(entry.path))


def _is_stale(entry: os.DirEntry[str]) -> bool:
    """Whether the folder belongs to this user and no process listens on its socket."""
    try:
        status = entry.stat(follow_symlinks=False)
        if not entry.is_dir(follow_symlinks=False) or status.st_uid != os.getuid():
            return False
        path = Path(entry.path) / SOCKET
        if not path.is_socket():
            return time.time() - status.st_mtime > _START_SECONDS
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:  # it was removed meanwhile, or is busy
        return False
    return False
