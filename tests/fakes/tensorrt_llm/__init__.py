"""TensorRT-LLM as documented: `LLM` is the class of the PyTorch backend."""

from ._configs import SamplingParams
from ._llm import TorchLLM as LLM  # noqa: N814 - its name
from ._version import VERSION

__version__ = VERSION
__all__ = ["LLM", "SamplingParams", "__version__"]
