"""Reads constraints, and translates them for llguidance (llama.cpp, vLLM) and xgrammar (TensorRT-LLM)."""

from doherty_engine.constraints._combination import check_combination, constraint_field
from doherty_engine.constraints._compiler import CompiledConstraint, ConstraintCompiler
from doherty_engine.constraints._limits import TRANSLATIONS, check_size
from doherty_engine.constraints._xgrammar import write_for_xgrammar

__all__ = [
    "TRANSLATIONS",
    "CompiledConstraint",
    "ConstraintCompiler",
    "check_combination",
    "check_size",
    "constraint_field",
    "write_for_xgrammar",
]
