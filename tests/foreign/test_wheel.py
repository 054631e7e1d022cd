"""The wheel in clean environments: each Python of this machine, and the oldest libraries that it declares."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from packaging.requirements import Requirement

from support.server import ServerProcess
from support.wheel import ROOT, Environment, install, run, site_packages

PYTHONS = ["3.11", "3.12", "3.13"]
PROGRAM = ROOT / "tests" / "foreign" / "compatibility.py"
DEPENDENCIES = [
    Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]
# typing_extensions is a dependency of grpcio.
NAMES = {"doherty", "typing_extensions", *(dependency.name for dependency in DEPENDENCIES)}


def installed(wheel: Path, name: str, folder: Path) -> Environment:
    """Installs the wheel together with the libraries of an environment that `make environments` created."""
    libraries = ROOT / ".cache" / name
    if (libraries / "absent").exists():
        pytest.skip(f"this machine has no {name}")
    python = libraries / "bin" / "python"
    assert python.exists(), "install it with `make environments`"
    return install(wheel, python, folder)


def versions(environment: Environment, target: str) -> dict[str, str]:
    """Runs compatibility.py, and returns the versions that it used."""
    report = json.loads(run(environment.python, "-I", "-W", "error", PROGRAM, target))
    assert Path(report.pop("doherty")).is_relative_to(environment.site)
    installed_versions: dict[str, str] = report
    return installed_versions


@pytest.mark.parametrize("python", PYTHONS)
def test_the_wheel_needs_only_its_dependencies(
    python: str, wheel: Path, synthetic_server: ServerProcess, tmp_path: Path
) -> None:
    environment = installed(wheel, f"python{python}", tmp_path)
    names = "from importlib.metadata import distributions; print(*(one.name for one in distributions()))"
    assert set(run(environment.python, "-I", "-c", names).split()) == NAMES
    assert run(environment.python, "-V").startswith(f"Python {python}.")
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    actual = versions(environment, synthetic_server.target)
    assert actual == {name: pins[name] for name in actual}
    command = subprocess.run([environment.bin / "doherty"], capture_output=True, text=True, check=False)
    assert (command.returncode, command.stdout) == (2, "")
    needs = "doherty: the command needs click, prompt_toolkit and rich"
    assert command.stderr == f"{needs}: {install_command(environment, 'cli')}\n"
    server = subprocess.run(
        [environment.python, "-I", "-c", "import doherty_service"], capture_output=True, text=True, check=False
    )
    needed = f"which the extra 'server' installs: run `{install_command(environment, 'server')}`"
    assert server.stderr.splitlines()[-1].startswith("ModuleNotFoundError: doherty_service needs ")
    assert server.stderr.splitlines()[-1].endswith(needed)


def install_command(environment: Environment, extra: str) -> str:
    """Returns the command in a message; test_an_extra_is_added_without_an_index checks that it works."""
    return f"{environment.python} -m pip install 'doherty[{extra}]'"


def test_an_extra_is_added_without_an_index(wheel: Path, tmp_path: Path) -> None:
    """pip finds a distribution that is installed, and does not ask an index for it."""
    environment = installed(wheel, "oldest", tmp_path)
    python = run(environment.python, "-c", "import doherty_extras; print(doherty_extras.install_command('plot'))")
    assert python.strip() == install_command(environment, "plot")
    pip = (sys.executable, "-m", "pip", "--python", tmp_path, "install", "--no-index", "--no-deps", "--dry-run")
    assert "Requirement already satisfied: doherty[plot]" in run(*pip, "doherty[plot]")


def test_the_wheel_contains_the_contract(wheel: Path, tmp_path: Path) -> None:
    """The proto files compile with the installed packages, and match the wheel's descriptor set."""
    environment = installed(wheel, "oldest", tmp_path)
    contract = environment.site / "doherty" / "v1"
    sources = sorted(path.name for path in contract.glob("*.proto"))
    assert sources == sorted(path.name for path in (ROOT / "proto" / "doherty" / "v1").glob("*.proto"))
    protoc = (ROOT / ".cache" / "oldest" / "bin" / "python", "-m", "grpc_tools.protoc")
    includes = [f"-I{folder}" for folder in (environment.site, site_packages(protoc[0]))]
    compiled = tmp_path / "compiled.binpb"
    output = ("--include_imports", f"--descriptor_set_out={compiled}")
    run(*protoc, *includes, *output, *(f"doherty/v1/{name}" for name in sources), "google/rpc/error_details.proto")
    assert ours(compiled) == ours(contract / "doherty.binpb")


def ours(descriptors: Path) -> list[FileDescriptorProto]:
    """Returns the files of a descriptor set without those of Google, which depend on the version of googleapis."""
    files = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    return [file for file in files if file.package == "doherty.v1"]


def test_the_long_description_links_to_the_repository(wheel: Path) -> None:
    [name] = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert set(urls) == {"Source", "Documentation", "Changelog"}
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
    blob = f"{urls['Source']}/blob/main/"
    inside = [url.removeprefix(blob).partition("#")[0] for url in (*links, *urls.values()) if url.startswith(blob)]
    assert len(inside) > len(urls)
    assert [path for path in inside if not (ROOT / path).exists()] == []


def test_the_wheel_works_with_the_oldest_libraries(
    wheel: Path, synthetic_server: ServerProcess, tmp_path: Path
) -> None:
    actual = versions(installed(wheel, "oldest", tmp_path), synthetic_server.target)
    for dependency in DEPENDENCIES:
        [oldest] = [bound.version for bound in dependency.specifier if bound.operator == ">="]
        assert f"{actual[dependency.name]}.".startswith(f"{oldest}."), dependency


def test_the_tested_versions_equal_the_declared_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [classifier.rpartition(" ")[2] for classifier in project["classifiers"] if "Python :: 3." in classifier]
    assert declared == PYTHONS
    assert f"PYTHONS := {' '.join(PYTHONS)}\n" in (ROOT / "Makefile").read_text()
