"""Everything that a test of the GPU engines needs without a GPU: fakes, simulated GPUs, and a model's folder."""

import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.hugging_face import Folder, write_llama3
from support.server import ServerProcess, start_server

FAKES = Path(__file__).parents[1] / "fakes"
FAKE_PATH = os.pathsep.join((str(FAKES), str(FAKES.parent)))
"""The PYTHONPATH with which a process finds the fakes and their dependencies."""
GIB = 1 << 30

H100 = {"name": "NVIDIA H100 80GB HBM3", "memory": 80 * GIB, "capability": [9, 0]}
L4 = {"name": "NVIDIA L4", "memory": 22 * GIB, "capability": [8, 9]}
A100 = {"name": "NVIDIA A100-SXM4-80GB", "memory": 80 * GIB, "capability": [8, 0]}
LLAMA3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
}
"""The shape of the model in its config.json, except for the size of the vocabulary, which is that of the test."""

ENGINES = {
    "tensorrt": ("profile=slow", "gather_generation_logits=true", "guided_decoding_backend=xgrammar"),
    "pytorch": ("profile=interactive",),
}
"""The options with which each backend supports all features that it can support."""


def environment(**scenario: Any) -> dict[str, str]:
    """Returns the environment variables with which a process finds the fakes; by default with one H100."""
    scenario.setdefault("cards", [H100])
    return {"PYTHONPATH": FAKE_PATH, "FAKE_GPU": json.dumps(scenario), "HF_HUB_OFFLINE": "1"}


def write_model(path: Path, **config: Any) -> Folder:
    """Writes a model of Llama 3's shape with a small vocabulary, and two files of weights that contain a few zeros."""
    folder = write_llama3(path)
    stored = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(stored | LLAMA3_8B | config))
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in parts:
        write_safetensors(path / name, 1000)
    index = {"metadata": {"total_size": 2000}, "weight_map": {f"w{index}": name for index, name in enumerate(parts)}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_safetensors(path: Path, size: int) -> None:
    header = json.dumps({"w": {"dtype": "I8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def calibration_set(path: Path) -> Path:
    """Creates an empty folder as the data set for calibration, which the fake does not read."""
    path.mkdir(exist_ok=True)
    return path


def options(*values: str) -> list[str]:
    """Returns engine options as flags."""
    return [flag for value in values for flag in ("-o", value)]


@contextmanager
def start_trtllm(model: Path, *values: str, flags: tuple[str, ...] = (), **scenario: Any) -> Iterator[ServerProcess]:
    """Runs a server with TensorRT-LLM that keeps its engines beside the model."""
    cache = model.parent / "engines"
    arguments = ("--engine", "trtllm", "--model", str(model), *options(f"engine_cache={cache}", *values), *flags)
    with start_server(*arguments, **environment(**scenario)) as server:
        yield server


def recorded(path: Path) -> list[dict[str, Any]]:
    """Reads the calls that the fake recorded."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def clean_environment(**variables: str) -> dict[str, str]:
    """Returns the environment for a command, without settings of servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOHERTY_", "OTEL_"))}
    return kept | variables


class FakeGpu:
    """Installs the fakes in this process while a test runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self.folder = folder
        self.record = folder / "record.jsonl"
        monkeypatch.syspath_prepend(str(FAKES))
        for name, value in environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def be(self, **scenario: Any) -> None:
        """Sets which GPUs exist and what fails from now on."""
        forget_fakes()
        self.record.unlink(missing_ok=True)
        self._monkeypatch.setenv("FAKE_GPU", environment(record=str(self.record), **scenario)["FAKE_GPU"])

    def calls(self, kind: str) -> list[dict[str, Any]]:
        """Returns the recorded calls of a type: "constructor" or "request"."""
        return [line for line in recorded(self.record) if kind in line]


def forget_fakes() -> None:
    """Removes the modules of the fakes, so that the next import loads them again."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {"tensorrt_llm", "pynvml", "xgrammar", "_scenario", "_forms"}:
            del sys.modules[name]
