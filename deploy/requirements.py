"""Prints what the wheel with these extras needs, for a layer of an image that does not change when the code does."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def needs(extra: str) -> set[str]:
    """The requirements of an extra; of `doherty[other]` in it, those of the other."""
    requirements: set[str] = set()
    for requirement in project["optional-dependencies"][extra]:
        if requirement.startswith("doherty["):
            requirements |= {need for other in requirement[len("doherty[") : -1].split(",") for need in needs(other)}
        else:
            requirements.add(requirement)
    return requirements


print(*sorted({*project["dependencies"], *(need for extra in sys.argv[1:] for need in needs(extra))}), sep="\n")
