"""Makes TensorRT-LLM's GuidedDecodingParams out of a constraint, once xgrammar has accepted it.

TensorRT-LLM compiles a grammar where it has already begun the request, and then all that is known of a mistake is that
the request failed: so each is compiled here first, by the same library.
"""

from typing import Any

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Constraint, EngineRequest
from doherty_engine.constraints import write_for_xgrammar
from doherty_engine.trtllm._library import load
from doherty_engine.trtllm._weights import first_line


def guided_decoding(constraint: Constraint, xgrammar: Any) -> Any:
    """The parameters; takes milliseconds, and for a large schema more.

    Raises:
        InvalidInputError: the constraint cannot be read, or is too large.
        UnsupportedError: it uses what xgrammar cannot do.
    """
    field, kind, text = write_for_xgrammar(constraint)
    compilers = {
        "json": xgrammar.Grammar.from_json_schema,
        "regex": xgrammar.Grammar.from_regex,
        "grammar": xgrammar.Grammar.from_ebnf,
    }
    try:
        compilers[kind](text)
    except (RuntimeError, ValueError) as error:
        # What is wrong with a constraint was found before: what is left is what xgrammar does not know.
        raise UnsupportedError(field, f"this engine cannot compile it: {first_line(error)}") from error
    return load("tensorrt_llm.llmapi").GuidedDecodingParams(**{kind: text})


def check_company(request: EngineRequest) -> None:
    """Raises UnsupportedError for what a constraint does not go together with."""
    if request.constraint is None:
        return
    if request.held is not None:
        raise UnsupportedError("continue_from", "this engine cannot advance a constraint over the held part")
    if request.stopping.ignore_eos:
        raise UnsupportedError("stopping.ignore_eos", "with a constraint the answer must be able to end")
