"""The wheel in clean environments: each Python that the machine has, and the oldest libraries that it declares."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.server import ServerProcess
from support.wheel import ROOT, Environment, install, run

PYTHONS = ["3.11", "3.12", "3.13"]
PROGRAM = ROOT / "tests" / "foreign" / "compatibility.py"
DEPENDENCIES = [
    Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]
# typing_extensions is grpcio's own.
NAMES = {"doherty", "typing_extensions", *(dependency.name for dependency in DEPENDENCIES)}


def installed(wheel: Path, name: str, folder: Path) -> Environment:
    """Installs the wheel beside the libraries of an environment that `make environments` made."""
    libraries = ROOT / ".cache" / name
    if (libraries / "absent").exists():
        pytest.skip(f"this machine has no {name}")
    python = libraries / "bin" / "python"
    assert python.exists(), "install it with `make environments`"
    return install(wheel, python, folder)


def versions(environment: Environment, target: str) -> dict[str, str]:
    """Runs compatibility.py; gives the versions that it ran on."""
    told = json.loads(run(environment.python, "-I", "-W", "error", PROGRAM, target))
    assert Path(told.pop("doherty")).is_relative_to(environment.site)
    found: dict[str, str] = told
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_wheel_needs_its_dependencies_alone(
    python: str, wheel: Path, synthetic_server: ServerProcess, tmp_path: Path
) -> None:
    environment = installed(wheel, f"python{python}", tmp_path)
    names = "from importlib.metadata import distributions; print(*(one.name for one in distributions()))"
    assert set(run(environment.python, "-I", "-c", names).split()) == NAMES
    assert run(environment.python, "-V").startswith(f"Python {python}.")
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    found = versions(environment, synthetic_server.target)
    assert found == {name: pins[name] for name in found}
    command = subprocess.run([environment.bin / "doherty"], capture_output=True, text=True, check=False)
    assert (command.returncode, command.stdout) == (2, "")
    assert command.stderr == "doherty: the command needs click and rich: pip install 'doherty[cli]'\n"


def test_the_wheel_works_with_the_oldest_libraries(
    wheel: Path, synthetic_server: ServerProcess, tmp_path: Path
) -> None:
    found = versions(installed(wheel, "oldest", tmp_path), synthetic_server.target)
    for dependency in DEPENDENCIES:
        [oldest] = [bound.version for bound in dependency.specifier if bound.operator == ">="]
        assert f"{found[dependency.name]}.".startswith(f"{oldest}."), dependency


def test_the_tested_versions_are_those_that_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]
    assert declared == PYTHONS
    assert f"PYTHONS := {' '.join(PYTHONS)}\n" in (ROOT / "Makefile").read_text()
