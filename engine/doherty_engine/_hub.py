"""Repositories on Hugging Face's hub, or where it cannot be asked, the copies of them in its cache."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from doherty_engine._errors import first_line
from doherty_engine._optional import import_optional

PATIENCE = 30.0
"""Seconds that the hub has to answer; its client alone would wait for ever."""
_PATIENCE_WITH_COPY = 5.0
"""The same where there is a copy in the cache."""
_DEFAULT_BRANCH = "main"
_log = logging.getLogger("doherty.engine")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one revision."""

    name: str
    """As "org/name"."""
    files: tuple[str, ...]
    """The files that can be had, as "folder/file"; of a copy, those that were downloaded before."""
    copy: Path | None
    """The folder in the cache, where the hub cannot be asked."""
    _revision: str
    _hub: ModuleType

    def fetch(self, *, only: Sequence[str] | None = None, without: Sequence[str] | None = None) -> Path:
        """Downloads what is missing, and returns the folder, whose name is the commit; blocks.

        Args:
            only: patterns of the files that are wanted.
            without: patterns of files that are not.

        Raises:
            Exception: they cannot be had; of any kind, for the hub's client lets those of its HTTP library through.
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
    """Asks the hub for a repository, or else looks for a copy of it in the cache; blocks.

    Args:
        name: its id, as "org/name".
        revision: a commit, branch or tag; empty is the default branch.
        extra: the extra of this distribution to name where the hub's client is missing.

    Raises:
        EngineSetupError: the hub's client is missing.
        Exception: it cannot be had; of any kind, as of `Repository.fetch`.
    """
    hub = import_optional("huggingface_hub", "A model on the hub", extra=extra, package="huggingface-hub")
    constants = import_module("huggingface_hub.constants")
    copy = find_copy(Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}", revision)
    try:
        # This call is not tried again, unlike the one that only lists files.
        info = hub.HfApi().model_info(
            name, revision=revision or None, timeout=PATIENCE if copy is None else _PATIENCE_WITH_COPY
        )
    except Exception as error:
        if copy is None:
            raise
        _log.warning(
            "The hub cannot be asked for %s (%s): commit %s is taken from its cache.",
            name,
            first_line(error),
            copy.name,
        )
        files = tuple(path.relative_to(copy).as_posix() for path in sorted(copy.rglob("*")) if path.is_file())
        return Repository(name, files, copy, revision, hub)
    return Repository(name, tuple(file.rfilename for file in info.siblings or ()), None, revision, hub)


def find_copy(folder: Path, revision: str) -> Path | None:
    """A revision's folder in a folder "models--org--name" of the hub's cache; None where it was never downloaded."""
    commit = revision or _DEFAULT_BRANCH
    with suppress(OSError):
        commit = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
    copy = folder / "snapshots" / commit
    return copy if copy.is_dir() else None
