"""The platform: with FAKE_VLLM_NO_GPU, there is no GPU."""

import os


class Platform:
    """The platform that vLLM found."""

    def is_unspecified(self) -> bool:
        """Whether it found nothing on which it can run."""
        return "FAKE_VLLM_NO_GPU" in os.environ


current_platform = Platform()
