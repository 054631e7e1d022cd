"""How the wheel is installed into an image that has an engine: beside what is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import wheel as wheels
from support.image import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# Of an age that an engine's image has, and not the newest that we would take.
OLD = ("click==8.2.1", "grpcio==1.76.0", "protobuf==6.33.5", "pydantic==2.11.7")


class Python:
    """An environment in the place of an image's Python."""

    def __init__(self, folder: Path, *packages: str) -> None:
        wheels.run(sys.executable, "-m", "venv", folder)
        self._bin = folder / "bin"
        wheels.run(self._bin / "python", "-m", "pip", "--quiet", "install", *packages)

    def install_beside(self, wheel: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}"}
        script = ("bash", ROOT / "deploy" / "install_beside.sh", wheel)
        return subprocess.run(script, capture_output=True, text=True, check=False, env=environment)

    def packages(self) -> set[str]:
        return set(wheels.run(self._bin / "python", "-m", "pip", "list", "--format=freeze").split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


def test_it_moves_nothing(wheel: Path, tmp_path: Path) -> None:
    python = Python(tmp_path, *OLD)
    before = python.packages()
    done = python.install_beside(wheel)
    assert done.returncode == 0, done.stderr
    assert set(OLD) <= before < python.packages()
    assert "Usage: doherty serve" in wheels.run(tmp_path / "bin" / "doherty", "serve", "--help")
    wheels.run(tmp_path / "bin" / "python", "-m", "pip", "check")


# The oldest pip that knows the script's options, which is Debian 12's as well, and a new one.
@pytest.mark.parametrize("pip", ["pip==23.0.1", "pip==26.3"])
def test_an_incompatible_package_is_named(pip: str, wheel: Path, tmp_path: Path) -> None:
    python = Python(tmp_path, pip, "click==8.1.3")
    before = python.packages()
    done = python.install_beside(wheel)
    assert done.returncode != 0
    assert "depends on click" in done.stderr
    assert python.packages() == before
