"""Finds programs that tests start, but the project does not depend on; `make .cache/programs/.made` installs them."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".cache" / "programs"


def program(name: str) -> str:
    """Returns the path of a program; skips the test if this machine does not have it."""
    assert (FOLDER / ".made").exists(), "get the programs with `make .cache/programs/.made`"
    if (absent := FOLDER / f"{name}.absent").exists():
        pytest.skip(f"there is no {name}: {absent.read_text().strip()}")
    return str(FOLDER / name)


def is_present(name: str) -> bool:
    """Whether this machine has a program."""
    return (FOLDER / name).exists()
