"""The parts of vllm.envs that are used."""


def enable_envs_cache() -> None:
    """In the real package, vLLM then reads the environment only once."""
