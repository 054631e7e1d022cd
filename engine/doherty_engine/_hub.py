"""Finds and downloads repositories on Hugging Face's hub. If the hub is unreachable, uses the copies in its cache."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from doherty_engine._errors import first_line
from doherty_engine._optional import import_optional

TIMEOUT = 30.0
"""Seconds to wait for the hub; its client has no timeout by default."""
_TIMEOUT_WITH_COPY = 5.0
"""The same if there is a copy in the cache."""
_DEFAULT_BRANCH = "main"
_log = logging.getLogger("doherty.engine")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one revision."""

    name: str
    """In the form "org/name"."""
    files: tuple[str, ...]
    """The available files, in the form "folder/file". For a copy, the files that were downloaded before."""
    copy: Path | None
    """The folder in the cache, if the hub is unreachable."""
    _revision: str
    _hub: ModuleType

    def fetch(self, *, only: Sequence[str] | None = None, without: Sequence[str] | None = None) -> Path:
        """Downloads missing files, and returns the folder, whose name is the commit. Blocks.

        Args:
            only: Patterns of the files to download.
            without: Patterns of files to exclude.

        Raises:
            Exception: The download failed. It may be of any class, because the hub's client does not wrap the
                exceptions of its HTTP library.
        """
        return Path(
            self._hub.snapshot_download(
                self.name,
                revision=self._revision or None if self.copy is None else self.copy.name,
                allow_patterns=only,
                ignore_patterns=without,
                local_files_only=self.copy is not None,
            )
        )


def open_repository(name: str, revision: str, *, extra: str) -> Repository:
    """Looks up a repository on the hub, or in the cache if the hub is unreachable. Blocks.

    Args:
        name: Its id in the form "org/name".
        revision: A commit, branch or tag; empty means the default branch.
        extra: The extra of this distribution that contains the hub's client, for the error message.

    Raises:
        EngineSetupError: The hub's client is not installed.
        Exception: The repository cannot be found. It may be of any class, as in `Repository.fetch`.
    """
    hub = import_optional("huggingface_hub", "A model on the hub", extra=extra, package="huggingface-hub")
    constants = import_module("huggingface_hub.constants")
    copy = find_copy(Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}", revision)
    try:
        # The hub's client does not retry this call, unlike the one that only lists files.
        info = hub.HfApi().model_info(
            name, revision=revision or None, timeout=TIMEOUT if copy is None else _TIMEOUT_WITH_COPY
        )
    except Exception as error:
        if copy is None:
            raise
        _log.warning(
            "The hub could not be reached for %s (%s): commit %s is taken from the cache.",
            name,
            first_line(error),
            copy.name,
        )
        files = tuple(path.relative_to(copy).as_posix() for path in sorted(copy.rglob("*")) if path.is_file())
        return Repository(name, files, copy, revision, hub)
    return Repository(name, tuple(file.rfilename for file in info.siblings or ()), None, revision, hub)


def find_copy(folder: Path, revision: str) -> Path | None:
    """The folder of a revision within a folder "models--org--name" of the hub's cache; None if it is not there."""
    commit = revision or _DEFAULT_BRANCH
    with suppress(OSError):
        commit = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
    copy = folder / "snapshots" / commit
    return copy if copy.is_dir() else None
