"""Where built engines and quantized checkpoints lie, each in a folder of its own that is either whole or not there.

All that it depends on makes its key. It is built in a temporary folder beside its place, gets a manifest of its files
last of all, and is then renamed. Who builds holds a lock, which ends with its process however that ends.
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
    """The folder of a kind of things, as "engines", in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else expand_user("~/.cache")) / "doherty" / kind


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What a build depends on."""

    inputs: Mapping[str, object]
    """All of it, as the manifest has it; in JSON."""
    title: tuple[str, ...]
    """What a person looks for among folders."""

    @property
    def name(self) -> str:
        """The folder's: the title, and a digest of it all."""
        digest = hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:12]
        return _UNSAFE.sub("-", "_".join((*self.title, digest)))


class BuildCache:
    """A folder of builds."""

    def __init__(self, folder: Path, *, what: str, option: str) -> None:
        """`what` is one of them called, and `option` is the engine's option that names the folder."""
        self.folder = folder
        self._what = what
        self._option = option

    def path(self, key: BuildKey) -> Path:
        """Where it is, or would be."""
        return self.folder / key.name

    def find(self, key: BuildKey) -> Path | None:
        """Its folder; None where it has not been built.

        Raises:
            EngineSetupError: it is there, but not whole.
        """
        path = self.path(key)
        if not path.exists():
            return None
        if why := _fault(path):
            raise EngineSetupError(
                f"The built {self._what} {path} is broken ({why}); run `doherty engine prepare` with the same options "
                "to build it again."
            )
        return path

    @contextlib.contextmanager
    def locked(self, key: BuildKey, on_wait: Callable[[], None]) -> Iterator[None]:
        """Holds its lock; `on_wait` is called if somebody else does.

        Raises:
            EngineSetupError: the folder cannot be locked, or written to in the block.
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
                f"{self._what.capitalize()}s cannot be kept in {self.folder} ({error.strerror}); set {self._option} to "
                "another folder."
            ) from error

    def add(self, key: BuildKey, build: Callable[[Path], None]) -> Path:
        """Lets `build` fill a folder, and puts it in its place; only with the lock held.

        What earlier builds left half-made is removed, and a broken one is moved aside.
        """
        for rest in self.folder.glob(f".{key.name}.*.tmp"):
            shutil.rmtree(rest)
        made = Path(tempfile.mkdtemp(prefix=f".{key.name}.", suffix=".tmp", dir=self.folder))
        try:
            build(made)
            files = {str(file.relative_to(made)): file.stat().st_size for file in made.rglob("*") if file.is_file()}
            _write(made / _MANIFEST, {**key.inputs, "files": files})
            path = self.path(key)
            if path.exists():
                path.rename(_free_name(path))
            made.rename(path)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return path


def _free_name(path: Path) -> Path:
    return next(free for n in range(1, 1000) if not (free := path.with_name(f"{path.name}.broken-{n}")).exists())


def _write(path: Path, value: object) -> None:
    """Writes a file that is on the disk when the folder gets its name."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _fault(path: Path) -> str:
    """What is wrong with a folder; empty if nothing is."""
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
