"""Every shell and Python block of the documents is run by a test, or marked with the reason why it is not."""

import os
import re
import shlex
import subprocess
import sysconfig
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from support.pages import ROOT, Block, blocks
from support.server import ServerProcess

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]
CODE = {"python", "sh", "bash"}
# The tests of pages whose blocks belong together. The unmarked blocks of all other pages are run here.
RUN_BY = {
    "docs/sdk.md": "tests/client/test_sdk_doc.py",
    "docs/testing.md": "tests/client/test_testing_doc.py",
    "docs/languages.md": "tests/foreign/test_languages.py",
}
ALL = [block for page in PAGES for block in blocks(page)]
RUN_HERE = [
    block
    for block in ALL
    if block.language in CODE and not block.not_run and str(block.page.relative_to(ROOT)) not in RUN_BY
]


def where(block: Block) -> str:
    return f"{block.page.relative_to(ROOT)}:{block.line}"


def test_every_block_has_a_language() -> None:
    """`text` is for drawings and outputs. Without a language, it is not clear whether to run the block."""
    assert [where(block) for block in ALL if not block.language] == []
    fences = sum(len(re.findall("^ *```", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(ALL)


@pytest.mark.parametrize("block", RUN_HERE, ids=where)
def test_an_unmarked_block_runs(block: Block, synthetic_server: ServerProcess, tmp_path: Path) -> None:
    text = block.text.replace("localhost:50051", synthetic_server.target)
    shell = ["python", "-W", "error", "-c"] if block.language == "python" else ["bash", "-euc"]
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    done = subprocess.run(
        [*shell, text], capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_separate_tests_of_pages_exist() -> None:
    assert all((ROOT / test).exists() for test in RUN_BY.values())
    assert not any(block.not_run for block in ALL if block.language not in CODE)


def commands() -> list[tuple[str, list[str]]]:
    """Returns the command lines of `doherty` in all shell blocks."""
    lines = [
        (where(block), line)
        for block in ALL
        if block.language in {"sh", "bash"}
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    pattern = r"(?:^|[;|&(] *|[A-Z_]+=\S+ +)(doherty (?:[^&|<#>;)]|&(?!&))+)"
    return [(place, shlex.split(part)) for place, line in lines for part in re.findall(pattern, line)]


@pytest.mark.parametrize(("place", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_command_accepts_the_options_in_the_documents(
    place: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also applies to blocks that cannot be run here."""
    assert place
    monkeypatch.chdir(tmp_path)
    for name in ("real.txt", "person.json", "secrets/ca.pem"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("{}")
    Path("talk.json").write_text('[{"role": "user", "content": "Hello."}]')
    _, name, *arguments = command
    loaded = [entry.load() for entry in entry_points(group="doherty.commands", name=name)]
    chosen: click.Command = loaded[0] if loaded else getattr(import_module(f"doherty.cli._{name}"), name)
    while isinstance(chosen, click.Group):
        step, *arguments = arguments
        subcommand = chosen.get_command(click.Context(chosen), step)
        assert subcommand is not None, step
        chosen = subcommand
    chosen.make_context(name, arguments)
