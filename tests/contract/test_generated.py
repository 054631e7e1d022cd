"""The contract does not break, and what is generated from it runs on every library version that we declare."""

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.server import ServerProcess

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "proto" / "baseline.binpb"
# `make test` installs it.
OLDEST_PYTHON = ROOT / ".cache" / "oldest" / "bin" / "python"
DEPENDENCIES = [
    Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]


def breaking(proto: Path) -> subprocess.CompletedProcess[str]:
    """Compares the proto files in a folder with the baseline, as `make check` does."""
    command = [f"{sysconfig.get_path('scripts')}/buf", "breaking", str(proto), "--against", str(BASELINE)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_baseline_moves_only_with_a_changelog_line() -> None:
    line = f"Contract baseline: sha256 {hashlib.sha256(BASELINE.read_bytes()).hexdigest()}"
    recorded = [found for found in (ROOT / "CHANGELOG.md").read_text().splitlines() if "Contract baseline:" in found]
    assert recorded[:1] == [f"- {line}"], "the newest CHANGELOG entry must say that the baseline moved, and why"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("optional string prompt = 3;", "optional string prompt = 30;"),
        ("optional uint32 top_k = 3;", "optional int32 top_k = 3;"),
        ("  ROLE_ASSISTANT = 3;", ""),
    ],
)
def test_a_breaking_change_is_refused(tmp_path: Path, old: str, new: str) -> None:
    proto = tmp_path / "proto"
    shutil.copytree(ROOT / "proto", proto)
    assert breaking(proto).returncode == 0
    source = proto / "doherty" / "v1" / "request.proto"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    assert "request.proto" in breaking(proto).stdout


def libraries(python: Path, target: str) -> dict[str, str]:
    """Runs compatibility.py against a server; gives the versions that it ran on."""
    program = ROOT / "tests" / "foreign" / "compatibility.py"
    done = subprocess.run([python, "-W", "error", program, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def test_the_newest_libraries_work(synthetic_server: ServerProcess) -> None:
    versions = libraries(Path(sys.executable), synthetic_server.target)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert versions == {name: pins[name] for name in versions}


def test_the_oldest_libraries_work(synthetic_server: ServerProcess) -> None:
    assert OLDEST_PYTHON.exists(), "install it with `make fresh`"
    versions = libraries(OLDEST_PYTHON, synthetic_server.target)
    for dependency in DEPENDENCIES:
        [oldest] = [bound.version for bound in dependency.specifier if bound.operator == ">="]
        assert f"{versions[dependency.name]}.".startswith(f"{oldest}."), dependency
