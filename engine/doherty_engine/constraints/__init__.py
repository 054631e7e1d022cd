"""Makes grammars for llguidance out of constraints, for the engines that have it inside: llama.cpp and vLLM."""

from doherty_engine.constraints._forms import Form, FormCompiler

__all__ = ["Form", "FormCompiler"]
