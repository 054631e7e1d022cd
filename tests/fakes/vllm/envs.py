"""What is known of vllm.envs."""


def enable_envs_cache() -> None:
    """The real one lets vLLM read the environment once."""
