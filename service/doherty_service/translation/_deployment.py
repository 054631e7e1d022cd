"""What a deployment fills in where a request says nothing."""

from dataclasses import dataclass, field

from doherty_engine import SamplingDefaults


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment's own defaults."""

    max_output_tokens: int = 1024
    system_prompt: str = ""
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    control_tokens: bool = False
    """Whether control tokens that the contents of messages spell out are read as such."""
