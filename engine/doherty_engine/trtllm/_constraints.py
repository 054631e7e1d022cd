"""Translates a constraint to TensorRT-LLM's GuidedDecodingParams, after a trial compilation by xgrammar.

TensorRT-LLM compiles a grammar only after it has begun the request. Meanwhile all other requests wait, and an error has
no message. So each grammar is compiled before by the same library, with a time limit.
"""

from typing import Any

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Constraint
from doherty_engine.constraints import write_for_xgrammar
from doherty_engine.tokens import FairThreads
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._library import load


async def guided_decoding(constraint: Constraint, key: str, *, translations: FairThreads, trial: GrammarTrial) -> Any:
    """Returns the parameters.

    Args:
        constraint: The constraint.
        key: Who wants it; keys take turns.
        translations: The threads that translate it.
        trial: The process that compiles it.

    Raises:
        InvalidInputError: The constraint is invalid or too large.
        UnsupportedError: xgrammar does not support it, or takes too long to compile it.
    """
    field, kind, text = await translations.run(key, write_for_xgrammar, constraint)
    # Invalid constraints were already refused: the remaining problems are limits of xgrammar.
    tried = await trial.compile(kind, text, key)
    if tried.problem:
        raise UnsupportedError(field, tried.problem)
    form = "regex" if kind == "regex" else "grammar"
    return load("tensorrt_llm.llmapi").GuidedDecodingParams(**{form: tried.grammar})
