"""TensorRT-LLM 1.2.1 as documented: `LLM` is the PyTorch backend's."""

from ._configs import BuildConfig, SamplingParams
from ._llm import TorchLLM as LLM  # noqa: N814 - its name

__version__ = "1.2.1"
__all__ = ["LLM", "BuildConfig", "SamplingParams", "__version__"]
