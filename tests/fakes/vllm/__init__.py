"""A stand-in for vLLM, whose real one needs a GPU: what the engine uses, and what refuses what the engine must not do.

It has what vLLM has from 0.26 to 0.33, and FAKE_VLLM_VERSION chooses between the two where they differ.
"""

from ._version import VERSION

__version__ = VERSION
