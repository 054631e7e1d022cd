"""docs/languages.md, word for word: its files are written, its commands run, and its programs print what it says."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from support.debian import debian_project, install_on_debian, on_debian
from support.pages import ROOT, Block, blocks
from support.server import ServerProcess

PAGE = list(blocks(ROOT / "docs" / "languages.md"))
[EXPECTED] = [block.text for block in PAGE if block.language == "text"]
NODE_MODULES = ROOT / "tests" / "foreign" / "node" / "node_modules"

Run = Callable[[str], str]


def follow(section: str, project: Path, run: Run, target: str) -> str:
    """Writes the files of a section into a project, runs its commands, and returns what they print."""
    printed = ""
    for block in section_of(section):
        if block.title:
            (project / block.title).write_text(block.text)
        else:
            assert block.language == "sh"
            printed += run(block.text.replace("localhost:50051", target))
    return printed


def section_of(name: str) -> list[Block]:
    """The blocks of a section; there are some."""
    found = [block for block in PAGE if block.section == name]
    assert found
    return found


@pytest.fixture
def project() -> Iterator[Path]:
    with debian_project() as folder:
        yield folder


@pytest.mark.languages
@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", ["Go", "C++", "Java", "Ruby"])
def test_the_program_of_a_language(language: str, project: Path, synthetic_server: ServerProcess) -> None:
    printed = follow(language, project, on_debian, synthetic_server.target)
    assert printed.endswith(EXPECTED)


@pytest.mark.languages
@pytest.mark.timeout(600)
def test_protoc_and_buf(project: Path) -> None:
    install_on_debian(ROOT / ".venv" / "bin" / "buf")
    follow("The files", project, on_debian, "")
    assert files(project / "doherty.binpb") == files(ROOT / "deploy" / "envoy" / "doherty.binpb")
    on_debian("buf generate")
    by_buf = generated(project / "src")
    shutil.rmtree(project / "src")
    [commands, *_] = section_of("Go")
    on_debian(commands.text)
    assert by_buf == generated(project / "src") != {}
    on_debian("buf generate proto")


def files(descriptors: Path) -> dict[str, FileDescriptorProto]:
    """The files of a descriptor set, by their names."""
    return {file.name: file for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file}


def generated(folder: Path) -> dict[str, str]:
    """The generated files, by their path, but for the line with the version of the compiler."""
    return {
        str(path.relative_to(folder)): "".join(
            line for line in path.read_text().splitlines(keepends=True) if not line.startswith("// \tprotoc ")
        )
        for path in folder.rglob("*.go")
    }


def test_the_program_of_node(tmp_path: Path, synthetic_server: ServerProcess) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")

    def run(commands: str) -> str:
        if commands.startswith("npm install "):
            packages = commands.split()[2:]  # they are installed here, by tests/foreign/node/package.json
            assert all((NODE_MODULES / package).is_dir() for package in packages)
            (tmp_path / "node_modules").symlink_to(NODE_MODULES)
            return ""
        done = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert follow("Node", tmp_path, run, synthetic_server.target) == EXPECTED
