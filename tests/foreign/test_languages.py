"""Follows docs/languages.md: writes its files, runs its commands, and compares the output of its programs."""

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
    """Writes the files of a section into a project, runs its commands, and returns their output."""
    printed = ""
    for block in section_of(section):
        if block.title:
            (project / block.title).write_text(block.text)
        else:
            assert block.language == "sh"
            printed += run(block.text.replace("localhost:50051", target))
    return printed


def section_of(name: str) -> list[Block]:
    """Returns the blocks of a section; there must be some."""
    matching = [block for block in PAGE if block.section == name]
    assert matching
    return matching


@pytest.fixture
def project() -> Iterator[Path]:
    with debian_project() as folder:
        yield folder


@pytest.mark.languages
@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", ["Go", "C++", "Java", "Ruby"])
def test_the_program_of_each_language_runs(language: str, project: Path, synthetic_server: ServerProcess) -> None:
    printed = follow(language, project, on_debian, synthetic_server.target)
    assert printed.endswith(EXPECTED)


@pytest.mark.languages
@pytest.mark.timeout(600)
def test_protoc_and_buf_generate_the_same_code(project: Path) -> None:
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
    """Returns the files of a descriptor set by their names."""
    return {file.name: file for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file}


def generated(folder: Path) -> dict[str, str]:
    """Returns the generated files by their paths, without the line that contains the version of the compiler."""
    return {
        str(path.relative_to(folder)): "".join(
            line for line in path.read_text().splitlines(keepends=True) if not line.startswith("// \tprotoc ")
        )
        for path in folder.rglob("*.go")
    }


def test_the_program_of_node_runs(tmp_path: Path, synthetic_server: ServerProcess) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")

    def run(commands: str) -> str:
        if commands.startswith("npm install "):
            packages = commands.split()[2:]  # tests/foreign/node/package.json installs these packages here
            assert all((NODE_MODULES / package).is_dir() for package in packages)
            (tmp_path / "node_modules").symlink_to(NODE_MODULES)
            return ""
        done = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert follow("Node", tmp_path, run, synthetic_server.target) == EXPECTED
