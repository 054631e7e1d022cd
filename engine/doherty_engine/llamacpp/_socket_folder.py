"""The private folder in which llama.cpp's listener, a Unix socket, lies."""

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
"""The name of the socket in its folder."""

_PREFIX = "doherty-"
_OURS = re.compile(r"doherty-[a-z0-9_]{8}")
"""The names that `mkdtemp` makes of the prefix."""

_MOST_PATH_BYTES = 103
"""Of a Unix socket's path: 107 on Linux, 103 on macOS."""

_START_SECONDS = 60.0
"""How old a folder without a socket is before it counts as left behind: a server that starts has none yet, either."""


def make_socket_folder() -> Path:
    """Makes a folder that only this user can enter; removes those of servers that were killed.

    It lies in TMPDIR, or elsewhere if that is too long for a socket's path or cannot be written.

    Raises:
        EngineSetupError: there is no place for it.
    """
    reasons: list[str] = []
    for parent in dict.fromkeys(_parents()):
        if len(os.fsencode(parent / "doherty-12345678" / SOCKET)) > _MOST_PATH_BYTES:
            reasons.append(f"{parent} is too long for the path of a socket")
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        _remove_left_behind(parent)
        return folder
    raise EngineSetupError(
        "The engine llamacpp needs a folder for a Unix socket; set TMPDIR to a short path of one that can be written "
        f"({'; '.join(reasons)})."
    )


def remove_socket_folder(folder: Path) -> None:
    """Removes a folder and its socket, and nothing else."""
    with suppress(OSError):
        (folder / SOCKET).unlink(missing_ok=True)
        folder.rmdir()


def _parents() -> Iterator[Path]:
    with suppress(FileNotFoundError):  # none of the usual folders can be written
        yield Path(tempfile.gettempdir()).absolute()
    yield Path("/tmp")  # noqa: S108 - the folder below it is a private one
    yield Path("/dev/shm")  # noqa: S108 - as above; a container has it even if its root cannot be written


def _remove_left_behind(parent: Path) -> None:
    """Removes the folders in whose socket nobody listens any more."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and _is_left_behind(entry):
                remove_socket_folder(Path(entry.path))


def _is_left_behind(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is ours and nobody listens in it."""
    try:
        found = entry.stat(follow_symlinks=False)
        if not entry.is_dir(follow_symlinks=False) or found.st_uid != os.getuid():
            return False
        path = Path(entry.path) / SOCKET
        if not path.is_socket():
            return time.time() - found.st_mtime > _START_SECONDS
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:  # it is gone by now, or busy
        return False
    return False
