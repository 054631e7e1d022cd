"""Builds the target `cpu` of the Dockerfile and runs it read-only and without privileges, as `docker run` would."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from doherty import __version__
from support.certificates import Authority
from support.image import FOLDER, ROOT, Container, Image, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

INSECURE = {"DOHERTY_INSECURE": "1"}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if (FOLDER / "absent").exists():
        pytest.skip(f"the image cannot be built: {(FOLDER / 'absent').read_text().strip()}")
    assert (FOLDER / ".made").exists(), "create its base with `make .cache/image/.made`"
    with build("cpu") as built:
        yield built


@pytest.fixture(scope="module")
def container(image: Image) -> Iterator[Container]:
    with image.serving(**INSECURE) as running:
        yield running


@pytest.mark.parametrize("variables", [{}, {"DOHERTY_INSECURE": "0"}])
def test_plaintext_needs_a_setting(image: Image, variables: dict[str, str]) -> None:
    refused = image.start(**variables)
    assert refused.wait() == 2
    [line] = refused.read()
    assert "Listening on 0.0.0.0:50051 would offer plaintext" in str(line["text"])


def test_the_container_is_healthy_and_answers_with_the_packaged_model(image: Image, container: Container) -> None:
    test, *check = image.config["Healthcheck"]["Test"]
    assert test == "CMD"
    healthy = container.execute(*check)
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "SERVING\n", "")
    question = ("generate", "What is 12 * 9?", "--temperature", "0", "--max-output-tokens", "24", "--json")
    answer = container.execute("doherty", *question)
    assert answer.returncode == 0, answer.stderr
    assert "108" in json.loads(answer.stdout)["text"]


def test_the_container_has_no_privileges_and_leaves_no_files(image: Image, container: Container) -> None:
    assert container.execute("id", "-u").stdout == "10001\n"
    for folder in ("/", "/home/doherty", "/cache", "/opt/doherty/bin"):
        assert "Read-only file system" in container.execute("touch", f"{folder}/file").stderr
    owners = container.execute("stat", "--format=%U", "/home/doherty", "/cache", "/opt/doherty").stdout
    assert owners.split() == ["doherty", "doherty", "root"]
    assert image.config["User"] == "10001:10001"
    assert set(image.config["ExposedPorts"]) == {"50051/tcp"}
    for rest in ("/src", "/build", "/wheel", "/var/lib/apt/lists", "/root/.cache"):
        assert not [*(image.root / rest[1:]).glob("*")], rest


def test_the_image_describes_itself_and_its_contents(image: Image, container: Container) -> None:
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"].startswith("docker.io/library/python:3.")
    bill = json.loads((image.root / "usr/share/doherty/sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {f"{component['name']}=={component['version']}" for component in bill["components"]}
    installed = container.execute("/opt/doherty/bin/python", "-m", "pip", "list", "--format=freeze").stdout.split()
    assert listed == set(installed)
    assert {"doherty", "grpcio", "xllamacpp"} <= {component["name"] for component in bill["components"]}


def test_the_size_of_the_image_is_that_in_the_readme(image: Image) -> None:
    [documented] = re.findall(r"with (\d+) MB in /opt/doherty", (ROOT / "README.md").read_text())
    files = (image.root / "opt" / "doherty").rglob("*")
    megabytes = sum(file.lstat().st_size for file in files if not file.is_symlink()) / 1e6
    assert 0.9 < megabytes / int(documented) < 1.1, megabytes


def test_a_signal_to_the_first_process_ends_the_container_cleanly(image: Image) -> None:
    with image.serving(**INSECURE) as container:
        assert container.stop() == 0
    container.wait_for("stopped")


def test_a_container_with_a_certificate_needs_no_insecure_and_is_healthy(image: Image, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew("server")
    folder = image.root / "certificates"  # the path of the mount in the container
    shutil.copytree(tmp_path, folder)
    for path in (folder, *folder.iterdir()):
        os.chown(path, 10001, 10001)
    files = {
        "DOHERTY_TLS_CERT": f"/certificates/{authority.chain.name}",
        "DOHERTY_TLS_KEY": f"/certificates/{authority.key.name}",
        "DOHERTY_TLS_CA": f"/certificates/{authority.roots_file.name}",
    }
    with image.serving(**files) as container:
        [_, *check] = image.config["Healthcheck"]["Test"]
        assert container.execute(*check, **files).stdout == "SERVING\n"
        assert container.execute(*check).returncode == 3  # a client without TLS cannot connect
        assert container.stop() == 0
