"""Runs commands on Debians with compilers: `languages` is that of docs/languages.md, `debian13` has a newer Go.

`make .cache/NAME/.made` creates them.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.pages import ROOT

_CACHE = ROOT / ".cache"
_SECONDS = "300"


@contextmanager
def debian_project(name: str = "languages") -> Iterator[Path]:
    """Creates a folder with `proto` on a Debian until the end of the block; skips the test if there is no Debian."""
    debian = _CACHE / name
    if not debian.exists():
        pytest.fail(f"make it with `make .cache/{name}/.made`")
    if (debian / "absent").exists():
        pytest.skip((debian / "absent").read_text())
    project = debian / "root" / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(ROOT / "proto", project / "proto")
    yield project
    shutil.rmtree(project)


def install_on_debian(program: Path) -> None:
    """Copies a program to a folder in which the Debian `languages` looks for commands."""
    shutil.copy(program, _CACHE / "languages" / "root" / "usr" / "local" / "bin")


def on_debian(commands: str, name: str = "languages") -> str:
    """Runs commands in the project on a Debian, as root. The packages that they install are already installed."""
    inside = ROOT / "tests" / "support" / "inside.sh"
    commands = f"cd /project\n{commands.replace('apt-get install', 'apt-get install --no-install-recommends')}"
    done = subprocess.run(
        ["bash", inside, _CACHE / name / "root", "env", "HOME=/root", "timeout", _SECONDS, "bash", "-euc", commands],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
