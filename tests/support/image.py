"""Builds images from the Dockerfile without a container engine, and runs them as a container engine would."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.server import ServerProcess

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".cache" / "image"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")

_STORAGE: Final = ("--storage-driver", "vfs", "--root", str(FOLDER / "storage"), "--runroot", str(FOLDER / "run"))
_ENVIRONMENT: Final = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(FOLDER)}
# As `docker run --read-only --tmpfs /tmp --network none`, and then as the user of the image.
_RUN: Final = """
root=$1 user=$2
shift 2
ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec="$user" "$root" env --ignore-environment "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image whose files are in a folder."""

    root: Path
    config: Mapping[str, Any]

    def command(self, *arguments: str, **variables: str) -> list[str]:
        """Returns the command that runs the image with these arguments, or with its default arguments."""
        home = f"HOME={self.config['WorkingDir']}"
        more = [f"{name}={value}" for name, value in variables.items()]
        own = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        return [f"--chdir={self.config['WorkingDir']}", home, *self.config["Env"], *more, *own]

    def start(self, *arguments: str, **variables: str) -> "Container":
        """Runs the image in a network namespace that has only the loopback interface."""
        alone = ("unshare", "--mount", "--net", "--pid", "--fork")
        script = ("sh", "-euc", _RUN, "sh", str(self.root), self.config["User"])
        process = subprocess.Popen(
            [*alone, *script, *self.command(*arguments, **variables)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Container(self, process)

    @contextmanager
    def serving(self, *arguments: str, **variables: str) -> Iterator["Container"]:
        """Runs the image until the end of the block, which begins when its server is ready."""
        container = self.start(*arguments, **variables)
        try:
            container.wait_for("ready")
            yield container
        finally:
            if container.process.poll() is None:
                container.stop(signal.SIGKILL)
            container.wait()


class Container(ServerProcess):
    """A running image."""

    def __init__(self, image: Image, process: subprocess.Popen[str]) -> None:
        """Reads its log."""
        super().__init__(process)
        self._image = image

    def execute(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container, as `docker exec` does."""
        within = ("nsenter", f"--target={self._child}", "--mount", "--net", "--pid")
        changed = ("chroot", f"--userspec={self._image.config['User']}", str(self._image.root))
        env = self._image.command(**variables)[: -len(self._image.config["Entrypoint"] + self._image.config["Cmd"])]
        return subprocess.run(
            [*within, *changed, "env", "--ignore-environment", *env, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal to the first process of the container, as `docker stop` does, and returns the exit code."""
        os.kill(self._child, number)
        return self.wait()

    @property
    def _child(self) -> int:
        parent = self.process.pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())


@contextmanager
def build(target: str) -> Iterator[Image]:
    """Builds a target using only files of the local storage, and unpacks its files."""
    volumes = ("--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro") if CERTIFICATES.exists() else ()
    options = ("--format", "docker", "--pull-never", "--target", target, "--tag", target, *volumes)
    _run("bud", *options, str(ROOT))
    config = json.loads(_run("inspect", "--type", "image", target))["Docker"]["config"]
    container = _run("from", "--pull-never", target)
    try:
        yield Image(Path(_run("mount", container)), config)
    finally:
        _run("rm", container)
        _run("rmi", target)


def _run(*arguments: str) -> str:
    done = subprocess.run(
        ["buildah", *_STORAGE, *arguments], capture_output=True, text=True, check=False, env=_ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
