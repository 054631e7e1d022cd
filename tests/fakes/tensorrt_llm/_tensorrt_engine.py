"""The class of the TensorRT backend, which is "legacy" at 1.2."""

from ._llm import EngineLLM as LLM  # noqa: N814 - its name

__all__ = ["LLM"]
