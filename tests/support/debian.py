"""The Debian with the compilers of docs/languages.md, which `make .cache/languages/.made` makes."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.pages import ROOT

_DEBIAN = ROOT / ".cache" / "languages"
_SECONDS = "300"


@contextmanager
def debian_project() -> Iterator[Path]:
    """A folder with `proto` on that Debian, until the end of the block; skips the test where there is none."""
    if not _DEBIAN.exists():
        pytest.fail("make it with `make .cache/languages/.made`")
    if (_DEBIAN / "absent").exists():
        pytest.skip((_DEBIAN / "absent").read_text())
    project = _DEBIAN / "root" / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(ROOT / "proto", project / "proto")
    yield project
    shutil.rmtree(project)


def install_on_debian(program: Path) -> None:
    """Copies a program to where that Debian finds commands."""
    shutil.copy(program, _DEBIAN / "root" / "usr" / "local" / "bin")


def on_debian(commands: str) -> str:
    """Runs commands in the project on that Debian, as root; what they install is installed already."""
    inside = ROOT / "tests" / "support" / "inside.sh"
    commands = f"cd /project\n{commands.replace('apt-get install', 'apt-get install --no-install-recommends')}"
    done = subprocess.run(
        ["bash", inside, _DEBIAN / "root", "env", "HOME=/root", "timeout", _SECONDS, "bash", "-euc", commands],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
