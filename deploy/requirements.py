"""Prints what the wheel with these extras needs, for a layer of an image that does not change when the code does."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def needs(extra: str) -> set[str]:
    """The requirements of an extra; of `doherty[other]` in it, those of the other."""
    wanted: set[str] = set()
    for requirement in project["optional-dependencies"][extra]:
        if requirement.startswith("doherty["):
            wanted |= {one for other in requirement[len("doherty[") : -1].split(",") for one in needs(other)}
        else:
            wanted.add(requirement)
    return wanted


print(*sorted({*project["dependencies"], *(one for extra in sys.argv[1:] for one in needs(extra))}), sep="\n")
