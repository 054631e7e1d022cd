"""The parts of transformers that load and run a model."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _scenario import scenario


class Model:
    """A model that records its inputs."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.device = "cpu"
        self.is_evaluated = self.is_quantized = self.head_is_quantized = False
        self.seen: list[int] = []
        self.quantizers: dict[str, Any] = {}

    def to(self, device: str) -> "Model":
        self.device = device
        return self

    def eval(self) -> "Model":
        self.is_evaluated = True
        return self

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        yield "", self
        yield from self.quantizers.items()

    def __call__(self, *, input_ids: Any, use_cache: bool) -> None:
        assert not use_cache
        assert input_ids.device == self.device
        (ids,) = input_ids.data
        assert max(ids) < self.config["vocab_size"]
        self.seen.append(len(ids))
        time.sleep(scenario().build_seconds)


class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(path: str, *, dtype: str) -> Model:
        assert dtype == "auto"
        folder = Path(path)
        if not list(folder.glob("*.safetensors")):
            raise OSError(f"Error no file named model.safetensors found in directory {path}.")
        scenario().write(loaded=path, process=os.getpid())
        scenario().reach("load")
        return Model(json.loads((folder / "config.json").read_text()))
