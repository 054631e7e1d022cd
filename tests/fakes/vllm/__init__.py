"""A stand-in for vLLM 0.26 that needs no GPU: see README.md beside it."""

__version__ = "0.26.0"
