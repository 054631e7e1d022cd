"""Writes constraints for xgrammar, which TensorRT-LLM has inside, and refuses what it gets wrong without a word."""

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Choices, Constraint, Grammar, JsonSchema, Regex
from doherty_engine.constraints._fields import FORMATS, read_grammar, read_regex
from doherty_engine.constraints._limits import check_size
from doherty_engine.constraints._pattern import PatternUnsupportedError
from doherty_engine.constraints._pattern_writers import XgrammarWriter
from doherty_engine.constraints._schema import SchemaWriter
from doherty_engine.constraints._schema_plain import Binding
from doherty_engine.constraints._schema_values import Json, unsupported

_PARTS = ("$ref", "allOf", "anyOf")
_ALONE = (*_PARTS, "const", "enum", "pattern", "format")
"""What xgrammar takes to be all that is said of a value but its type."""
_MOST_PATTERNS = 4_096
_FIRST_PRINTABLE = " "


def _check_xgrammar(written: dict[str, Json], path: str) -> None:
    """Refuses what xgrammar 0.1 ignores or gets wrong without a word."""
    _check_alone(written, path)
    for keyword in ("multipleOf", "prefixItems"):
        if keyword in written:
            raise unsupported(keyword, path, "this engine cannot do it")
    members = written.get("allOf")
    if isinstance(members, list) and len(members) > 1:
        raise unsupported("allOf", path, "this engine cannot join schemas")
    if isinstance(written.get("type"), list) and written.keys() - {"type", "const", "enum"}:
        raise unsupported("type", path, "this engine takes several types only where nothing is said of each")
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if keyword in written and written.get("type") != "integer":
            raise unsupported(keyword, path, "this engine compares whole numbers alone; let 'type' be 'integer'")
    properties = written.get("properties")
    for name in properties if isinstance(properties, dict) else ():
        if any(character in '"\\' or character < _FIRST_PRINTABLE for character in name):
            raise unsupported("properties", path, f"this engine cannot write the name {name[:40]!r}")


def _check_alone(written: dict[str, Json], path: str) -> None:
    for keyword in _ALONE:
        beside = written.keys() - {keyword, "type", "$defs"}
        if keyword in written and (beside or (keyword in _PARTS and "type" in written)):
            beside_it = min(beside, default="type")
            raise unsupported(keyword, path, f"this engine takes nothing beside it, and there is {beside_it!r}")


_BINDING = Binding(
    XgrammarWriter(in_json=True).write, ".17g", FORMATS, _MOST_PATTERNS, free_names=False, check=_check_xgrammar
)


def write_for_xgrammar(constraint: Constraint) -> tuple[str, str, str]:
    """The path of the constraint's field, what xgrammar calls its kind ("json", "regex", "grammar"), and its text.

    Raises:
        InvalidInputError: the constraint cannot be read, or is too large.
        UnsupportedError: it uses what xgrammar cannot do.
    """
    match constraint:
        case JsonSchema(schema):
            return "constraint.json_schema", "json", SchemaWriter(schema, _BINDING).write()
        case Regex(pattern):
            return "constraint.regex", "regex", _regex(pattern)
        case Grammar(gbnf):
            read_grammar(gbnf)  # by our own reader first, which bounds it and says what is wrong with it
            return "constraint.grammar", "grammar", gbnf
        case Choices(choices):
            check_size("constraint.choices", "".join(choices))
            return "constraint.choices", "grammar", "root ::= " + " | ".join(map(_literal, choices))


def _regex(pattern: str) -> str:
    read = read_regex(pattern)
    if len(pattern) > _MOST_PATTERNS:
        raise UnsupportedError("constraint.regex", f"this engine takes at most {_MOST_PATTERNS} characters")
    try:
        return XgrammarWriter(in_json=False).write(read)
    except PatternUnsupportedError as error:
        raise UnsupportedError("constraint.regex", str(error)) from error


def _literal(text: str) -> str:
    r"""A literal of xgrammar's EBNF, every character but letters and digits as \uXXXX or \UXXXXXXXX."""
    return '"' + "".join(_quote(character) for character in text) + '"'


def _quote(character: str) -> str:
    if character.isascii() and (character.isalnum() or character == " "):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - what four digits hold
