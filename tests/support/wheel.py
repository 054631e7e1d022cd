"""Builds the wheel, and installs it into environments."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

# Settings of the caller's Python must not influence the environments.
_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a program, checks that it succeeds, and returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=_ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path, source: Path = ROOT) -> Path:
    """Builds the wheel into a folder."""
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=source)
    [wheel] = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment in which the wheel is installed."""

    bin: Path
    site: Path

    @property
    def python(self) -> Path:
        """The path of its interpreter."""
        return self.bin / "python"


def site_packages(python: Path) -> Path:
    """Returns the folder of an interpreter's packages."""
    return Path(run(python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def install(wheel: Path, python: Path, folder: Path) -> Environment:
    """Creates an environment that contains the wheel and the packages of the given interpreter."""
    run(python, "-m", "venv", "--without-pip", folder)
    environment = Environment(folder / "bin", site_packages(folder / "bin" / "python"))
    (environment.site / "dependencies.pth").write_text(f"{site_packages(python)}\n")
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", folder, "install", *options, wheel)
    return environment
