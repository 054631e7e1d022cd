"""The Dockerfile, as far as it can be checked without building it."""

import re

import pytest

from support.image import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)$(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL))
"""What each image is made of."""


@pytest.mark.parametrize("target", ["trtllm", "vllm"])
def test_on_a_gpu_all_caches_lie_on_the_volume(target: str) -> None:
    variables = dict(re.findall(r"^(?:ENV |    )(\w+)=(\S+)", STAGES[target], re.MULTILINE))
    assert (variables["HOME"], variables["XDG_CACHE_HOME"]) == ("/cache", "/cache")
