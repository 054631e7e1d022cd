"""A user's program with the SDK, checked by mypy and pyright in their strictest modes, with the wheel installed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from support import guide
from support.pages import blocks
from support.wheel import ROOT, Environment, install, run


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(wheel, Path(sys.executable), tmp_path_factory.mktemp("consumer"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates a project outside of this repository, because the settings of the repository must not apply."""
    folder = tmp_path_factory.mktemp("project")
    examples = (path for path in (ROOT / "examples").glob("*.py") if path.name != "demo.py")  # nobody calls it
    for path in (*(ROOT / "tests" / "foreign" / "consumer").glob("*.py"), *examples):
        shutil.copy(path, folder)
    (folder / "guide.py").write_text(guide.program())
    page = (block.text for block in blocks(ROOT / "docs" / "testing.md") if block.language == "python")
    (folder / "testing_guide.py").write_text("\n".join(page))
    settings = {
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False,  # these comments are for mypy
        "reportUnnecessaryTypeIgnoreComment": True,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return folder


def test_mypy_accepts_the_program_and_finds_the_mistakes(environment: Environment, project: Path) -> None:
    cache = ("--config-file=", "--cache-dir", project / ".mypy_cache")
    output = run(
        sys.executable, "-m", "mypy", "--strict", *cache, "--python-executable", environment.python, ".", cwd=project
    )
    assert output.startswith("Success: no issues found in ")


def test_pyright_accepts_the_program_and_finds_the_mistakes(environment: Environment, project: Path) -> None:
    output = run(sys.executable, "-m", "pyright", "--pythonpath", environment.python, cwd=project)
    assert output.startswith("0 errors, 0 warnings")
