"""The embedded engine: runs llama.cpp in this process, on the CPU, with any model in a GGUF file.

The tokenizer and the chat template come from the GGUF file. Importing this package does not import xllamacpp.
"""

from doherty_engine.llamacpp._engine import LlamaCppEngine, create
from doherty_engine.llamacpp._options import Options

__all__ = ["LlamaCppEngine", "Options", "create"]
