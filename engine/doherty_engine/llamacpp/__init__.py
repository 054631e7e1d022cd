"""The embedded engine: llama.cpp in this process, on the CPU, with any model in a GGUF file.

It brings its own tokenizer and chat template. Importing this package loads none of the libraries that it needs.
"""

from doherty_engine.llamacpp._engine import LlamaCppEngine, create
from doherty_engine.llamacpp._options import Options

__all__ = ["LlamaCppEngine", "Options", "create"]
