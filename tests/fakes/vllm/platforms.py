"""Which GPU there is: FAKE_VLLM_NO_GPU takes it away."""

import os


class Platform:
    """What vLLM found."""

    def is_unspecified(self) -> bool:
        """Whether it found nothing that it can run on."""
        return "FAKE_VLLM_NO_GPU" in os.environ


current_platform = Platform()
