"""The Dockerfile, as far as it can be checked without building it."""

import re

import pytest

from doherty import __version__
from support.image import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)$(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL))
"""What each image is made of."""
BASES = dict(re.findall(r"^FROM (\S+) AS (python|trtllm|vllm)$", TEXT, re.MULTILINE))


@pytest.mark.parametrize("target", ["cpu", "trtllm", "vllm"])
def test_labels_say_what_an_image_is(target: str) -> None:
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
def test_on_a_gpu_all_caches_lie_on_the_volume(target: str) -> None:
    variables = dict(re.findall(r"^(?:ENV |    )(\w+)=(\S+)", STAGES[target], re.MULTILINE))
    assert (variables["HOME"], variables["XDG_CACHE_HOME"]) == ("/cache", "/cache")
