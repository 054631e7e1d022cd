"""Makes TensorRT-LLM's GuidedDecodingParams out of a constraint, once xgrammar has accepted it.

TensorRT-LLM compiles a grammar where it has already begun the request, and then all that is known of a mistake is that
the request failed: so each is compiled here first, by the same library.
"""

import json
from typing import Any

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._requests import Choices, Constraint, EngineRequest, Grammar, JsonSchema, Regex
from doherty_engine.models import first_line
from doherty_engine.trtllm._library import load

_MAX_CHARACTERS = 32_768


def guided_decoding(constraint: Constraint, xgrammar: Any) -> Any:
    """The parameters; takes milliseconds, and for a large schema more.

    Raises:
        InvalidInputError: the constraint cannot be read, or is too large.
    """
    field, kind, text = _translate(constraint)
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"it has {len(text)} characters, and at most {_MAX_CHARACTERS} are taken")
    compilers = {
        "json": xgrammar.Grammar.from_json_schema,
        "regex": xgrammar.Grammar.from_regex,
        "grammar": xgrammar.Grammar.from_ebnf,
    }
    try:
        compilers[kind](text)
    except (RuntimeError, ValueError) as error:
        raise InvalidInputError(field, f"it cannot be compiled: {first_line(error)}") from error
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
