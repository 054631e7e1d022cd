"""The wheel, and environments that it is installed into."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

# The caller's Python stays out of theirs.
_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a program to its end, which must be a good one, and returns what it prints."""
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
    """A virtual environment with the wheel."""

    bin: Path
    site: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin / "python"


def site_packages(python: Path) -> Path:
    """Where the packages of an interpreter are."""
    return Path(run(python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def install(wheel: Path, python: Path, folder: Path) -> Environment:
    """Installs the wheel into a new environment, beside the packages of the interpreter that is given."""
    run(python, "-m", "venv", "--without-pip", folder)
    environment = Environment(folder / "bin", site_packages(folder / "bin" / "python"))
    (environment.site / "dependencies.pth").write_text(f"{site_packages(python)}\n")
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", folder, "install", *options, wheel)
    return environment
