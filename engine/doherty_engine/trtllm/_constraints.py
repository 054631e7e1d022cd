"""Makes TensorRT-LLM's GuidedDecodingParams out of a constraint, once xgrammar has accepted it.

TensorRT-LLM compiles a grammar where it has already begun the request, and then all that is known of a mistake is that
the request failed, while all others wait: so each is compiled before, by the same library, within a bound of time.
"""

import json
from typing import Any

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._requests import Choices, Constraint, EngineRequest, Grammar, JsonSchema, Regex
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._library import load

_MAX_CHARACTERS = 32_768


def guided_decoding(constraint: Constraint, trial: GrammarTrial) -> Any:
    """The parameters; blocks for milliseconds, and for a large schema longer.

    Raises:
        InvalidInputError: the constraint cannot be read, is too large, or takes too long to compile.
    """
    field, kind, text = _translate(constraint)
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"it has {len(text)} characters, and at most {_MAX_CHARACTERS} are taken")
    if problem := trial.problem(kind, text):
        raise InvalidInputError(field, problem)
    return load("tensorrt_llm.llmapi").GuidedDecodingParams(**{kind: text})


def check_company(request: EngineRequest) -> None:
    """Raises UnsupportedError for what a constraint does not go together with."""
    if request.constraint is None:
        return
    if request.held is not None:
        raise UnsupportedError("continue_from", "this engine cannot advance a constraint over the held part")
    if request.stopping.ignore_eos:
        raise UnsupportedError("stopping.ignore_eos", "with a constraint the answer must be able to end")


def field_of(constraint: Constraint) -> str:
    """The path of a constraint's field."""
    return _translate(constraint)[0]


def _translate(constraint: Constraint) -> tuple[str, str, str]:
    """The path of the constraint's field, which of GuidedDecodingParams' guides it is, and its text."""
    match constraint:
        case JsonSchema(schema):
            return "constraint.json_schema", "json", _read_schema(schema)
        case Regex(pattern):
            return "constraint.regex", "regex", pattern
        case Grammar(gbnf):
            return "constraint.grammar", "grammar", gbnf
        case Choices(choices):
            return "constraint.choices", "grammar", "root ::= " + " | ".join(map(_literal, choices))


def _read_schema(schema: str) -> str:
    field = "constraint.json_schema"
    try:
        value = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(field, f"it is not JSON: {error}") from error
    if not isinstance(value, dict | bool):
        raise InvalidInputError(field, "a JSON Schema is an object, true or false")
    return schema


def _literal(text: str) -> str:
    r"""A literal of xgrammar's EBNF, every character but letters and digits as \uXXXX or \UXXXXXXXX."""
    return '"' + "".join(_quote(character) for character in text) + '"'


def _quote(character: str) -> str:
    if character.isascii() and (character.isalnum() or character == " "):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - what four digits hold
