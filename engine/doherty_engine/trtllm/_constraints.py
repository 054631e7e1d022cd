"""Makes TensorRT-LLM's GuidedDecodingParams out of a constraint, once xgrammar has accepted it.

TensorRT-LLM compiles a grammar where it has already begun the request, and then all that is known of a mistake is that
the request failed, while all others wait: so each is compiled before, by the same library, within a bound of time.
"""

from typing import Any

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Constraint
from doherty_engine.constraints import write_for_xgrammar
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._library import load


def guided_decoding(constraint: Constraint, trial: GrammarTrial) -> Any:
    """The parameters; blocks for milliseconds, and for a large schema longer.

    Raises:
        InvalidInputError: the constraint cannot be read, or is too large.
        UnsupportedError: it uses what xgrammar cannot do, or takes too long to compile.
    """
    field, kind, text = write_for_xgrammar(constraint)
    # What is wrong with a constraint was found before: what is left is what xgrammar does not know.
    if problem := trial.problem(kind, text):
        raise UnsupportedError(field, problem)
    return load("tensorrt_llm.llmapi").GuidedDecodingParams(**{kind: text})
