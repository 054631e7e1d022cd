"""Translates a constraint to TensorRT-LLM's GuidedDecodingParams, after a trial compilation by xgrammar.

TensorRT-LLM compiles a grammar only after it has begun the request. Meanwhile all other requests wait, and an error has
no message. So each grammar is compiled before by the same library, with a time limit.
"""

from typing import Any

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Constraint
from doherty_engine.constraints import write_for_xgrammar
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._library import load


def guided_decoding(constraint: Constraint, trial: GrammarTrial) -> Any:
    """Returns the parameters. Blocks for milliseconds, or longer for large schemas.

    Raises:
        InvalidInputError: The constraint is invalid or too large.
        UnsupportedError: xgrammar does not support it, or takes too long to compile it.
    """
    field, kind, text = write_for_xgrammar(constraint)
    # Invalid constraints were already refused: the remaining problems are limits of xgrammar.
    if problem := trial.problem(kind, text):
        raise UnsupportedError(field, problem)
    return load("tensorrt_llm.llmapi").GuidedDecodingParams(**{kind: text})
