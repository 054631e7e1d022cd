"""The programs that tests start and that the project does not depend on: `make .cache/programs/.made` gets them."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".cache" / "programs"


def program(name: str) -> str:
    """The path of a program; skips the test on a machine that does not have it."""
    assert (FOLDER / ".made").exists(), "get the programs with `make .cache/programs/.made`"
    if (absent := FOLDER / f"{name}.absent").exists():
        pytest.skip(f"there is no {name}: {absent.read_text().strip()}")
    return str(FOLDER / name)


def is_present(name: str) -> bool:
    """Whether the machine has a program."""
    return (FOLDER / name).exists()
