"""Proves on a user's own machine that an engine for GPUs and this server do together what is promised.

It runs where the engine's package is, through `doherty engine verify`: real servers with several profiles, and what FP8
costs; for TensorRT-LLM first the contract with the installed package.
"""

from doherty_service.verification._report import REFERENCE
from doherty_service.verification._runs import QUESTIONS
from doherty_service.verification._trtllm import verify_trtllm
from doherty_service.verification._vllm import verify_vllm

__all__ = ["QUESTIONS", "REFERENCE", "verify_trtllm", "verify_vllm"]
