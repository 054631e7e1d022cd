"""Writes regular expressions for llguidance and xgrammar, with only the syntax that both interpret as intended."""

from doherty_engine.constraints._characters import Ranges, complement, intersection
from doherty_engine.constraints._pattern import (
    Alternatives,
    Anchor,
    AnyCase,
    Characters,
    Pattern,
    PatternUnsupportedError,
    Repetition,
    Series,
)

_ASCII_END = 0x7F
_BEYOND_ASCII: Ranges = complement(((0, _ASCII_END),))
_MAX_SPELLED_OUT = 64
_JSON_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}
_JSON_RAW = complement(((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)))
"""The characters that a JSON string may contain unescaped."""


def write_rust(pattern: Pattern) -> str:
    """Writes an expression for Rust's regex-syntax, which llguidance uses; the result needs no escapes in Lark."""
    match pattern:
        case Characters(ranges, properties, negated):
            return _rust_class(ranges, properties, negated=negated)
        case Anchor(sign):
            return sign
        case Series(items):
            return "".join(map(write_rust, items))
        case Alternatives(items):
            return f"(?:{'|'.join(map(write_rust, items))})"
        case Repetition(item, minimum, maximum):
            return f"(?:{write_rust(item)}){_bounds(minimum, maximum)}"
        case AnyCase(item):
            return f"(?i:{write_rust(item)})"


class XgrammarWriter:
    """Writes expressions for xgrammar 0.1.

    xgrammar always matches the whole text, and supports neither anchors nor Unicode properties. In a JSON Schema, it
    matches an expression against the encoded JSON string, so characters that JSON escapes must be written as escapes.
    """

    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json

    def write(self, pattern: Pattern) -> str:
        """Writes a whole expression.

        Raises:
            PatternUnsupportedError: It uses a feature that xgrammar does not support.
        """
        return f"({self._write(pattern)})"

    def _write(self, pattern: Pattern) -> str:
        match pattern:
            case Characters(ranges, properties, _):
                if properties:
                    raise PatternUnsupportedError("Unicode properties are not supported")
                return self._set(ranges)
            case Anchor():
                return ""
            case Series(items):
                return "".join(map(self._write, items))
            case Alternatives(items):
                return f"(?:{'|'.join(self._write(item) or '()' for item in items)})"
            case Repetition(item, minimum, maximum):
                return f"(?:{self._write(item)}){_bounds(minimum, maximum)}"
            case AnyCase():
                raise PatternUnsupportedError("the flag i is not supported")

    def _set(self, ranges: Ranges) -> str:
        escaped: list[str] = []
        if self._in_json:
            codes = [code for code in _JSON_ESCAPES if _has(ranges, code)]
            escaped = ["".join(map(_quote, map(ord, _JSON_ESCAPES[code]))) for code in codes]
            ranges = intersection(ranges, _JSON_RAW)
        beyond = intersection(ranges, _BEYOND_ASCII)
        if beyond == _BEYOND_ASCII:  # xgrammar supports no ranges beyond ASCII, but a negated ASCII class matches them
            left_out = intersection(complement(ranges), ((0, _ASCII_END),)) or ((0, 0),)
            written = [f"[^{_written(left_out)}]"]
        else:
            if sum(last - first + 1 for first, last in beyond) > _MAX_SPELLED_OUT:
                raise PatternUnsupportedError("character ranges beyond ASCII are not supported")
            ascii_part = intersection(ranges, ((0, _ASCII_END),))
            written = [f"[{_written(ascii_part)}]"] if ascii_part else []
            written += [_quote(code) for first, last in beyond for code in range(first, last + 1)]
        written += escaped
        if not written:
            raise PatternUnsupportedError("a class without characters is not supported")
        return written[0] if len(written) == 1 else f"(?:{'|'.join(written)})"


def _rust_class(ranges: Ranges, properties: tuple[str, ...], *, negated: bool) -> str:
    if not properties and len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _quote(ranges[0][0])
    return f"[{'^' if negated else ''}{''.join(properties)}{_written(ranges)}]"


def _written(ranges: Ranges) -> str:
    return "".join(_quote(first) if first == last else f"{_quote(first)}-{_quote(last)}" for first, last in ranges)


def _quote(code: int) -> str:
    character = chr(code)
    return character if character.isascii() and character.isalnum() else f"\\u{{{code:x}}}"


def _bounds(minimum: int, maximum: int | None) -> str:
    return f"{{{minimum},{'' if maximum is None else maximum}}}"


def _has(ranges: Ranges, code: int) -> bool:
    return any(first <= code <= last for first, last in ranges)
