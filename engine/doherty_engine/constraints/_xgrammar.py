"""Writes constraints for xgrammar, which TensorRT-LLM uses, and refuses what xgrammar would silently do wrong."""

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Choices, Constraint, Grammar, JsonSchema, Regex
from doherty_engine.constraints._fields import FORMATS, read_grammar, read_regex
from doherty_engine.constraints._limits import check_size
from doherty_engine.constraints._pattern import PatternUnsupportedError
from doherty_engine.constraints._pattern_writers import XgrammarWriter
from doherty_engine.constraints._schema import SchemaWriter
from doherty_engine.constraints._schema_keywords import Dialect
from doherty_engine.constraints._schema_values import Json, unsupported

_PARTS = ("$ref", "allOf", "anyOf")
_ALONE = (*_PARTS, "const", "enum", "pattern", "format")
"""Keywords beside which xgrammar ignores all others except `type`."""
_MAX_PATTERNS = 4_096
_FIRST_PRINTABLE = " "


def _check_xgrammar(written: dict[str, Json], path: str) -> None:
    """Refuses what xgrammar 0.1 silently ignores or does wrong."""
    _check_alone(written, path)
    for keyword in ("multipleOf", "prefixItems"):
        if keyword in written:
            raise unsupported(keyword, path, "this engine does not support it")
    members = written.get("allOf")
    if isinstance(members, list) and len(members) > 1:
        raise unsupported("allOf", path, "this engine cannot combine schemas")
    if isinstance(written.get("type"), list) and written.keys() - {"type", "const", "enum"}:
        raise unsupported("type", path, "this engine supports several types only without keywords for one of them")
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if keyword in written and written.get("type") != "integer":
            raise unsupported(keyword, path, "this engine supports it only for integers; set 'type' to 'integer'")
    properties = written.get("properties")
    for name in properties if isinstance(properties, dict) else ():
        if any(character in '"\\' or character < _FIRST_PRINTABLE for character in name):
            raise unsupported("properties", path, f"this engine does not support the name {name[:40]!r}")


def _check_alone(written: dict[str, Json], path: str) -> None:
    for keyword in _ALONE:
        beside = written.keys() - {keyword, "type", "$defs"}
        if keyword in written and (beside or (keyword in _PARTS and "type" in written)):
            beside_it = min(beside, default="type")
            raise unsupported(keyword, path, f"this engine cannot combine it with {beside_it!r}")


_DIALECT = Dialect(
    XgrammarWriter(in_json=True).write, ".17g", FORMATS, _MAX_PATTERNS, restricts_unlisted=False, check=_check_xgrammar
)


def write_for_xgrammar(constraint: Constraint) -> tuple[str, str, str]:
    """Translates a constraint for xgrammar.

    Returns:
        The path of the constraint's field, xgrammar's name for its kind ("json", "regex" or "grammar"), and its text.

    Raises:
        InvalidInputError: The constraint is invalid or too large.
        UnsupportedError: It uses a feature that xgrammar does not support.
    """
    match constraint:
        case JsonSchema(schema):
            return "constraint.json_schema", "json", SchemaWriter(schema, _DIALECT).write()
        case Regex(pattern):
            return "constraint.regex", "regex", _regex(pattern)
        case Grammar(gbnf):
            read_grammar(gbnf)  # our own parser limits its size and gives better error messages
            return "constraint.grammar", "grammar", gbnf
        case Choices(choices):
            check_size("constraint.choices", "".join(choices))
            return "constraint.choices", "grammar", "root ::= " + " | ".join(map(_literal, choices))


def _regex(pattern: str) -> str:
    tree = read_regex(pattern)
    if len(pattern) > _MAX_PATTERNS:
        raise UnsupportedError("constraint.regex", f"this engine supports at most {_MAX_PATTERNS} characters")
    try:
        return XgrammarWriter(in_json=False).write(tree)
    except PatternUnsupportedError as error:
        raise UnsupportedError("constraint.regex", str(error)) from error


def _literal(text: str) -> str:
    r"""Writes a literal of xgrammar's EBNF, with \uXXXX or \UXXXXXXXX for all but letters, digits and spaces."""
    return '"' + "".join(_quote(character) for character in text) + '"'


def _quote(character: str) -> str:
    if character.isascii() and (character.isalnum() or character == " "):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the maximum of four digits
