"""Builds the site of the documents into .cache/docs/site (`make docs`).

Writes the documents of the repository into .cache/docs/pages, with links that fit there, adds the references of the SDK
and of the contract, and runs mkdocs. A link that leads nowhere fails the build.
"""

import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet

import doherty.testing
from contract import write_reference

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ROOT / ".cache" / "docs" / "pages"
OPERATIONS: Final = "docs/operations.md"
SPLIT: Final = {"Settings": "settings.md", "Metrics": "metrics.md", "Errors": "errors.md"}
"""Sections of docs/operations.md that are pages of their own on the site."""


def document_pages() -> dict[str, str]:
    """The page of each document, both as paths: "docs/sdk.md" is "sdk.md"."""
    pages = {
        "README.md": "index.md",
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "benchmarks/README.md": "benchmarks.md",
    }
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = str(path.relative_to(ROOT / "docs"))
        pages[f"docs/{name}"] = name.replace("README.md", "index.md")
    return pages


class Documents:
    """The documents as pages, whose links lead to pages, or else into the repository."""

    def __init__(self) -> None:
        """Reads the documents."""
        self._pages = document_pages()
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        self._repository = f"{project['urls']['Source']}/blob/main"
        self._texts = {path: (ROOT / path).read_text() for path in self._pages}
        rest, self._sections = split(self._texts[OPERATIONS])
        self._texts[OPERATIONS] = rest
        self._moved = {
            slug_of(heading): page
            for page, text in self._sections.items()
            for heading in re.findall("^#+ (.*)$", text, re.MULTILINE)
        }

    def write(self) -> None:
        """Writes all pages."""
        for path, text in self._texts.items():
            write(self._pages[path], self._relink(text, path, self._pages[path]))
        for page, text in self._sections.items():
            write(page, self._relink(text, OPERATIONS, page))

    def _relink(self, text: str, document: str, page: str) -> str:
        def replace(match: re.Match[str]) -> str:
            return f"]({self._link(match[1], document, page)})"

        parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.MULTILINE | re.DOTALL)
        parts[::2] = [re.sub(r"\]\(([^)\s]+)\)", replace, part) for part in parts[::2]]
        return "".join(parts)

    def _link(self, link: str, document: str, page: str) -> str:
        if re.match(r"https?://|mailto:", link):
            return link
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(document), path)) if path else document
        if target == OPERATIONS and anchor in self._moved:
            to = self._moved[anchor]
        elif target in self._pages:
            to = self._pages[target]
        elif f"{target}/README.md" in self._pages:
            to = self._pages[f"{target}/README.md"]
        elif target == "proto/doherty/v1":
            to = "contract.md"
        elif (ROOT / target).exists():
            return f"{self._repository}/{target}" + f"#{anchor}" * bool(anchor)
        else:
            sys.exit(f"{document}: there is no {link}")
        return posixpath.relpath(to, posixpath.dirname(page) or ".") + f"#{anchor}" * bool(anchor)


def split(operations: str) -> tuple[str, dict[str, str]]:
    """The page on operations without the sections that are pages of their own, and those pages."""
    head, *sections = re.split(r"^(?=## )", operations, flags=re.MULTILINE)
    pages: dict[str, str] = {}
    kept = []
    for section in sections:
        title = section.splitlines()[0].removeprefix("## ")
        if title in SPLIT:
            pages[SPLIT[title]] = re.sub(r"^#(#+ )", r"\1", section, flags=re.MULTILINE)
        else:
            kept.append(section)
    if set(pages) != set(SPLIT.values()):
        sys.exit(f"{OPERATIONS} lacks one of the sections {', '.join(SPLIT)}")
    also = ", ".join(f"[{title}]({OPERATIONS.removeprefix('docs/')}#{title.lower()})" for title in SPLIT)
    return f"{head}Pages of their own: {also}.\n\n{''.join(kept)}", pages


def slug_of(heading: str) -> str:
    """The anchor of a heading, as mkdocs and GitHub make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def write(page: str, text: str) -> None:
    """Writes one page."""
    path = PAGES / page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def reference_of_the_sdk() -> str:
    """All public names; the clients come first, and errors last."""
    names = sorted(doherty.__all__, key=lambda name: (not name.endswith("Client"), name.endswith("Error"), name))
    names = [name for name in names if name[0].isupper()]
    names += [f"testing.{name}" for name in doherty.testing.__all__]
    return "\n\n".join(["# The SDK's reference", *(f"::: doherty.{name}" for name in names)]) + "\n"


def main() -> None:
    """Builds the site."""
    shutil.rmtree(PAGES, ignore_errors=True)
    Documents().write()
    scripts = Path(sys.executable).parent
    built = subprocess.run([scripts / "buf", "build", ROOT / "proto", "-o", "-"], check=True, stdout=subprocess.PIPE)
    write("contract.md", write_reference(FileDescriptorSet.FromString(built.stdout)))
    write("api.md", reference_of_the_sdk())
    config = Path(__file__).with_name("mkdocs.yml")
    mkdocs: list[str | Path] = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--config-file", config]
    sys.exit(subprocess.run(mkdocs, check=False).returncode)


if __name__ == "__main__":
    main()
