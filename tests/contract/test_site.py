"""The site of the documents can be built, and has no dead links."""

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import doherty.testing
from doherty.v1 import generation_service_pb2, latency_service_pb2, request_pb2
from support.pages import ROOT

SITE = ROOT / ".cache" / "docs" / "site"
REPOSITORY = "https://doherty.example/doherty/blob/main/"


class Page(HTMLParser):
    """The anchors and the references of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(
        self,
        tag: str,  # noqa: ARG002 - the signature is the library's
        attrs: list[tuple[str, str | None]],
    ) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in {"href", "src"} and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    """Builds the site, and returns all its pages."""
    build: list[str | Path] = [sys.executable, ROOT / "docs" / "site" / "build.py"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Page(path) for path in SITE.rglob("*.html")}


def dead_links(site: dict[Path, Page]) -> Iterator[str]:
    """Returns the dead links within the site or to the repository."""
    for page in site.values():
        for link in page.links:
            if link.startswith(REPOSITORY):
                if not (ROOT / link.removeprefix(REPOSITORY).partition("#")[0]).exists():
                    yield f"{page.path.name}: {link}"
                continue
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or page.path.name == "404.html":  # pages whose links are absolute
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in site and anchor not in site[target].anchors):
                yield f"{page.path.name}: {link}"


def test_the_site_has_no_dead_links(site: dict[Path, Page]) -> None:
    assert len(site) > 20
    assert list(dead_links(site)) == []


def test_the_expected_pages_exist(site: dict[Path, Page]) -> None:
    names = {str(path.relative_to(SITE)) for path in site}
    assert {"index.html", "sdk.html", "testing.html", "languages.html"} <= names
    assert {"settings.html", "metrics.html", "errors.html"} <= names
    assert "dohertyslotskept" in site[SITE / "operations.html"].anchors
    assert site[SITE / "errors.html"].anchors >= {"statuses-of-grpcs-core"}


def test_the_references_are_complete(site: dict[Path, Page]) -> None:
    contract = site[SITE / "contract.html"].anchors
    for module in (generation_service_pb2, latency_service_pb2, request_pb2):
        file = module.DESCRIPTOR
        names = {*file.message_types_by_name, *file.services_by_name, *file.enum_types_by_name}
        assert {name.lower() for name in names} <= contract
    names = {f"doherty.{name}" for name in doherty.__all__ if name[0].isupper()}
    names |= {f"doherty.testing.{name}" for name in doherty.testing.__all__}
    assert names <= site[SITE / "api.html"].anchors
