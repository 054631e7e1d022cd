"""The values that a deployment uses for fields that a request leaves unset."""

from dataclasses import dataclass, field

from doherty_engine import SamplingDefaults


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment's own defaults."""

    max_output_tokens: int = 1024
    system_prompt: str = ""
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    control_tokens: bool = False
    """Whether control tokens that are spelled out in the contents of messages are read as control tokens."""
