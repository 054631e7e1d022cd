"""The parts of `executor/` at 1.2 that callers see."""

from dataclasses import dataclass
from pathlib import Path


class RequestError(RuntimeError):
    """A request has failed."""


@dataclass(slots=True)
class LoRARequest:
    """The adapter of a request."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    lora_ckpt_source: str = "hf"

    def __post_init__(self) -> None:
        if not Path(self.lora_path).exists():
            raise ValueError(f"lora_path ({self.lora_path}) does not exist.")
        if self.lora_ckpt_source not in ("hf", "nemo"):
            raise ValueError(f"lora_ckpt_source must be 'hf' or 'nemo', got '{self.lora_ckpt_source}'")
