"""A fake of vLLM, because the real package needs a GPU: the parts that the engine uses, and checks of forbidden uses.

It contains what vLLM 0.26 to 0.33 have in common. FAKE_VLLM_VERSION selects the version where the two differ.
"""

from ._version import VERSION

__version__ = VERSION
