"""The scenario that a test chooses for the fakes: the variable FAKE_GPU, in JSON."""

import json
import os
import signal
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scenario:
    """The GPUs, the speed, and the failures."""

    cards: list[dict[str, Any]] = field(default_factory=list)
    """The GPUs: name, memory and capability, and optionally a uuid."""
    driver: bool = True
    tokens_per_second: float = 0.0
    """The rate of every request; 0 means as fast as possible."""
    prefill_tokens_per_second: float = 0.0
    hang_after_steps: int = 0
    fail_after_tokens: int = 0
    """A request fails with RequestError when it has generated this many tokens."""
    die_after_steps: int = 0
    """Every request fails with an error that is not a RequestError."""
    unwell_after_steps: int = 0
    """`_check_health` exists, and reports a failure from then on."""
    own_cancel_after_tokens: int = 0
    """TensorRT-LLM cancels requests by itself."""
    kill_at: str = ""
    """The stage of a build at which the process is killed: calibrate, build or save."""
    fail_at: str = ""
    """The stage at which an exception is raised."""
    build_seconds: float = 0.0
    largest_weight: float = 1.0
    """The largest value of a layer's weights, as found by calibration."""
    fp8_loss: float = 0.0
    """The increase of the logarithm of the perplexity in FP8; above 0, every 25th most probable token also differs."""
    record: str = ""
    """A file to which the arguments of the constructor and of each request are written, one JSON object per line."""
    loses_metrics: bool = False
    """Results have no RequestPerfMetrics."""

    def reach(self, stage: str) -> None:
        """Reaches a stage, and fails there if the scenario says so."""
        if self.kill_at == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail_at == stage:
            raise RuntimeError(f"CUDA error: out of memory while it did {stage}\nand more")

    def write(self, **values: Any) -> None:
        """Records the arguments of a call."""
        if self.record:
            with Path(self.record).open("a") as file:
                file.write(json.dumps(values, default=str) + "\n")


@cache
def scenario() -> Scenario:
    return Scenario(**json.loads(os.environ.get("FAKE_GPU", "{}")))
