"""A cache of built engines and quantized checkpoints. Each has its own folder, which is either complete or absent.

The name of the folder is derived from everything that the build depends on. The build is written to a temporary folder
in the same place, which is renamed after a manifest of its files has been written. The building process holds a file
lock, which the operating system releases when the process ends.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from doherty_engine._errors import EngineSetupError
from doherty_engine._paths import expand_user

_MANIFEST = "doherty.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def default_cache(kind: str) -> Path:
    """The folder for one kind of files, such as "engines", in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else expand_user("~/.cache")) / "doherty" / kind


@dataclass(frozen=True, slots=True)
class BuildKey:
    """Everything that a build depends on."""

    inputs: Mapping[str, object]
    """The inputs of the build, as JSON values; also written to the manifest."""
    title: tuple[str, ...]
    """Words by which a person recognizes the folder; its name starts with them."""

    @property
    def name(self) -> str:
        """The name of the folder: the title and a digest of the inputs."""
        digest = hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:12]
        return _UNSAFE.sub("-", "_".join((*self.title, digest)))


class BuildCache:
    """A folder of builds."""

    def __init__(self, folder: Path, *, what: str, option: str) -> None:
        """Describes the cache for error messages.

        Args:
            folder: The folder of all builds.
            what: What a build is called, in the singular, such as "engine".
            option: The engine's option that sets the folder.
        """
        self.folder = folder
        self._what = what
        self._option = option

    def path(self, key: BuildKey) -> Path:
        """The folder of a build, whether it exists or not."""
        return self.folder / key.name

    def find(self, key: BuildKey) -> Path | None:
        """The folder of a build; None if it has not been built.

        Raises:
            EngineSetupError: The build is damaged.
        """
        path = self.path(key)
        if not path.exists():
            return None
        if damage := _damage(path):
            raise EngineSetupError(
                f"The built {self._what} {path} is damaged ({damage}); run `doherty engine prepare` with the same "
                "options to build it again."
            )
        return path

    @contextlib.contextmanager
    def locked(self, key: BuildKey, on_wait: Callable[[], None]) -> Iterator[None]:
        """Holds the lock of a build; calls `on_wait` before waiting for another process that holds it.

        Raises:
            EngineSetupError: The folder cannot be locked, or the code in the `with` block cannot write to it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f".{key.name}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise EngineSetupError(
                f"{self._what.capitalize()}s cannot be stored in {self.folder} ({error.strerror}); set {self._option} "
                "to another folder."
            ) from error

    def add(self, key: BuildKey, build: Callable[[Path], None]) -> Path:
        """Runs `build` with a temporary folder, which becomes the build's folder; the caller must hold the lock.

        Temporary folders of interrupted builds are removed. A damaged build is renamed.
        """
        for unfinished in self.folder.glob(f".{key.name}.*.tmp"):
            shutil.rmtree(unfinished)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key.name}.", suffix=".tmp", dir=self.folder))
        try:
            build(temporary)
            files = [file for file in temporary.rglob("*") if file.is_file()]
            sizes = {str(file.relative_to(temporary)): file.stat().st_size for file in files}
            _write(temporary / _MANIFEST, {**key.inputs, "files": sizes})
            path = self.path(key)
            if path.exists():
                path.rename(_unused_name(path))
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return path


def _unused_name(path: Path) -> Path:
    return next(name for n in range(1, 1000) if not (name := path.with_name(f"{path.name}.broken-{n}")).exists())


def _write(path: Path, value: object) -> None:
    """Writes a JSON file, and waits until it is on the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _damage(path: Path) -> str:
    """Describes how a folder is damaged; empty if it is complete."""
    try:
        files: dict[str, int] = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {_MANIFEST} cannot be read"
    for name, size in files.items():
        try:
            if (path / name).stat().st_size != size:
                return f"{name} is not {size} bytes long"
        except OSError:
            return f"{name} is missing"
    return ""
