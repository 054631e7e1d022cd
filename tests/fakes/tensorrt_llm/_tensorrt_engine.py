"""The class of the TensorRT backend, which is "legacy" at 1.2 and does not exist in the newest version."""

from ._llm import EngineLLM as LLM  # noqa: N814 - its name
from ._version import IS_NEWEST

if IS_NEWEST:
    raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)

__all__ = ["LLM"]
