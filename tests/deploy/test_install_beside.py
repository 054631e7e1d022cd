"""Installs the wheel into an image's Python that already has the packages of an engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import wheel as wheels
from support.image import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# As old as in an engine's image, and not the newest version that we accept.
OLD = ("click==8.2.1", "grpcio==1.76.0", "protobuf==6.33.5", "pydantic==2.11.7")


# The oldest pip that has the options of the script, which is also Debian 12's, and a new one.
OLD_PIP, NEW_PIP = "pip==23.0.1", "pip==26.3"


class Python:
    """An environment in place of an image's Python. It compiles no bytecode, which would take longer than the rest."""

    def __init__(self, folder: Path, *packages: str) -> None:
        self._bin = folder / "bin"
        wheels.run(sys.executable, "-m", "venv", folder)
        self.install(*packages)

    def install(self, *packages: str) -> None:
        wheels.run(self._bin / "python", "-m", "pip", "--quiet", "install", "--no-compile", *packages)

    def install_beside(self, wheel: Path) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": f"{self._bin}:{os.environ['PATH']}", "PIP_NO_COMPILE": "1"}
        script = ("bash", ROOT / "deploy" / "install_beside.sh", wheel, ROOT / "constraints.txt")
        return subprocess.run(script, capture_output=True, text=True, check=False, env=os.environ | variables)

    def packages(self) -> set[str]:
        return set(wheels.run(self._bin / "python", "-m", "pip", "list", "--format=freeze").split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


def canonical(line: str) -> str:
    """Returns a requirement with its name in the form that pip compares."""
    return line.lower().replace("_", "-").replace(".", "-")


def check_refusal(python: Python, wheel: Path) -> None:
    """Checks that an incompatible package is named, and that nothing changes."""
    python.install("click==8.1.3")
    before = python.packages()
    done = python.install_beside(wheel)
    assert done.returncode != 0
    assert "depends on click" in done.stderr
    assert python.packages() == before


def test_an_old_pip_changes_no_installed_package(wheel: Path, tmp_path: Path) -> None:
    python = Python(tmp_path, OLD_PIP, *OLD[1:])
    check_refusal(python, wheel)
    python.install(*OLD)
    before = python.packages()
    done = python.install_beside(wheel)
    assert done.returncode == 0, done.stderr
    assert set(OLD) <= before < python.packages()
    assert "Usage: doherty serve" in wheels.run(tmp_path / "bin" / "doherty", "serve", "--help")
    wheels.run(tmp_path / "bin" / "python", "-m", "pip", "check")


def test_a_new_pip_installs_missing_packages_in_their_tested_versions(wheel: Path, tmp_path: Path) -> None:
    python = Python(tmp_path, NEW_PIP)
    check_refusal(python, wheel)
    python.install("click==8.2.1")  # it is compatible with all of our packages
    before = python.packages()
    done = python.install_beside(wheel)
    assert done.returncode == 0, done.stderr
    ours = {canonical(line) for line in python.packages() - before if not line.startswith("doherty==")}
    assert ours
    assert ours <= set(map(canonical, (ROOT / "constraints.txt").read_text().split()))
    assert "is not compatible" not in done.stderr
