"""The Dockerfile, as far as it can be checked without a build."""

import re

import pytest

from doherty import __version__
from support.image import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)$(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL))
"""The base of each image."""
BASES = dict(re.findall(r"^FROM (\S+) AS (python|trtllm|vllm)$", TEXT, re.MULTILINE))


@pytest.mark.parametrize("target", ["cpu", "trtllm", "vllm"])
def test_labels_describe_an_image(target: str) -> None:
    base = {"cpu": "python"}.get(target, target)
    [name] = (name for name, stage in BASES.items() if stage == base)
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="(.*?)"', STAGES[target]))
    assert labels["base.name"] == name
    assert (labels["version"], labels["revision"]) == ("${VERSION}", "${REVISION}")
    [argument] = re.findall(r"\$\{(\w+)\}$", name)
    for each in (argument, "VERSION", "REVISION"):
        assert re.search(rf"^ARG {each}$", STAGES[target], re.MULTILINE), each


def test_the_version_is_that_of_the_wheel() -> None:
    assert f"ARG VERSION={__version__}\n" in TEXT


@pytest.mark.parametrize("target", ["trtllm", "vllm"])
def test_all_caches_of_gpu_images_are_on_the_volume(target: str) -> None:
    variables = dict(re.findall(r"^(?:ENV |    )(\w+)=(\S+)", STAGES[target], re.MULTILINE))
    assert (variables["HOME"], variables["XDG_CACHE_HOME"]) == ("/cache", "/cache")


def test_every_build_argument_is_declared_where_it_is_used() -> None:
    instructions = re.sub(r"^#.*\n|\\\n", "", TEXT, flags=re.MULTILINE)
    head, *stages = re.split(r"^(?=FROM )", instructions, flags=re.MULTILINE)
    defaults = dict(re.findall(r"^ARG (\w+)=(.*)$", head, re.MULTILINE))
    used: set[str] = set()
    for stage in stages:
        base, *lines = stage.splitlines()
        in_base = set(re.findall(r"\$\{(\w+)\}", base))
        declared = set(re.findall(r"^ARG (\w+)$", stage, re.MULTILINE))
        in_labels = {name for line in lines if line.startswith("LABEL ") for name in re.findall(r"\$\{(\w+)\}", line)}
        assert in_base <= defaults.keys()
        assert in_labels == declared <= defaults.keys(), base
        used |= in_base | in_labels
    assert used == defaults.keys()
    assert all(value for name, value in defaults.items() if name != "REVISION")
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert [name for name in used if f"--build-arg {name}" not in page and f"`{name}`" not in page] == ["VERSION"]
