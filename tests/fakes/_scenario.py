"""What a test wants of the fakes: the variable FAKE_GPU, in JSON."""

import json
import os
import signal
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scenario:
    """The cards, the pace, and what goes wrong."""

    cards: list[dict[str, Any]] = field(default_factory=list)
    """Each with name, memory and capability, and maybe a uuid."""
    driver: bool = True
    tokens_per_second: float = 0.0
    """Of every request; 0 is as fast as possible."""
    prefill_tokens_per_second: float = 0.0
    hang_after_steps: int = 0
    fail_after_tokens: int = 0
    """A request fails with RequestError once it has generated so many tokens."""
    die_after_steps: int = 0
    """Everything fails with an error that is none of a request."""
    unwell_after_steps: int = 0
    """`_check_health` is there, and says so from then on."""
    own_cancel_after_tokens: int = 0
    """TensorRT-LLM ends requests as cancelled by itself."""
    kill_at: str = ""
    """The stage of a build at which the process is killed: calibrate, build or save."""
    fail_at: str = ""
    """The stage at which an exception is raised."""
    build_seconds: float = 0.0
    largest_weight: float = 1.0
    """The largest value of a layer's weights, as calibration finds it."""
    fp8_loss: float = 0.0
    """How much the logarithm of the perplexity is higher in FP8; then every 25th best token is another one, too."""
    record: str = ""
    """A file for lines of JSON: what the constructor and each request got."""
    loses_metrics: bool = False
    """Results come without RequestPerfMetrics."""

    def reach(self, stage: str) -> None:
        """Passes a stage, or not."""
        if self.kill_at == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail_at == stage:
            raise RuntimeError(f"CUDA error: out of memory while it did {stage}\nand more")

    def write(self, **values: Any) -> None:
        """Takes down what a call got."""
        if self.record:
            with Path(self.record).open("a") as file:
                file.write(json.dumps(values, default=str) + "\n")


@cache
def scenario() -> Scenario:
    return Scenario(**json.loads(os.environ.get("FAKE_GPU", "{}")))
