"""Runs the code of docs/testing.md in pytest, as a user would, and checks that the page mentions everything."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from doherty.testing import FakeServer, Reply, Request
from support.pages import ROOT, blocks

PAGE = ROOT / "docs" / "testing.md"
with FakeServer() as _server:
    FAKE_SERVER = {*vars(FakeServer), *vars(_server)}
PYTHON = [block for block in blocks(PAGE) if block.language == "python"]


def test_the_code_runs(tmp_path: Path) -> None:
    for name in {block.title for block in PYTHON}:
        text = "\n".join(block.text for block in PYTHON if block.title == name)
        (tmp_path / (name or "test_page.py")).write_text(text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    tests = sum(block.text.count("def test_") for block in PYTHON)
    assert f"{tests} passed" in done.stdout


@pytest.mark.parametrize(
    "names",
    [
        {name for name in FAKE_SERVER if not name.startswith("_")},
        {field.name for field in fields(Reply) if field.name != "_"},
        {field.name for field in fields(Request)} | {"messages"},
    ],
    ids=["FakeServer", "Reply", "Request"],
)
def test_every_name_is_mentioned(names: set[str]) -> None:
    code = " ".join(re.findall(r"`[^`\n]+`", PAGE.read_text())) + "".join(block.text for block in PYTHON)
    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()
