"""Writes regular expressions for the libraries that match them, so plainly that each reads the same."""

from doherty_engine.constraints._characters import Ranges, both, complement
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
_MOST_SPELLED_OUT = 64
_JSON_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}
_JSON_RAW = complement(((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)))
"""What may stand in a JSON string as it is."""


def write_rust(pattern: Pattern) -> str:
    """As Rust's regex-syntax reads it, which llguidance has inside; nothing in it needs an escape in Lark."""
    match pattern:
        case Characters(ranges, properties, negated):
            return _rust_class(ranges, properties, negated=negated)
        case Anchor(sign):
            return sign
        case Series(items):
            return "".join(map(write_rust, items))
        case Alternatives(items):
            return f"(?:{'|'.join(map(write_rust, items))})"
        case Repetition(item, least, most):
            return f"(?:{write_rust(item)}){_bounds(least, most)}"
        case AnyCase(item):
            return f"(?i:{write_rust(item)})"


class XgrammarWriter:
    """As xgrammar 0.1 reads it, which matches an expression as a whole and spells neither anchors nor properties.

    Inside a JSON Schema it puts an expression between the quotes of a JSON string as it is, so what JSON escapes must
    be written escaped.
    """

    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json

    def write(self, pattern: Pattern) -> str:
        """Writes a whole expression.

        Raises:
            PatternUnsupportedError: it uses what xgrammar cannot do.
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
            case Repetition(item, least, most):
                return f"(?:{self._write(item)}){_bounds(least, most)}"
            case AnyCase():
                raise PatternUnsupportedError("the flag i is not supported")

    def _set(self, ranges: Ranges) -> str:
        escaped: list[str] = []
        if self._in_json:
            codes = [code for code in _JSON_ESCAPES if _has(ranges, code)]
            escaped = ["".join(map(_quote, map(ord, _JSON_ESCAPES[code]))) for code in codes]
            ranges = both(ranges, _JSON_RAW)
        beyond = both(ranges, _BEYOND_ASCII)
        if beyond == _BEYOND_ASCII:  # ranges beyond ASCII do not work in xgrammar; but all of them, by a negation, do
            left_out = both(complement(ranges), ((0, _ASCII_END),)) or ((0, 0),)
            written = [f"[^{_written(left_out)}]"]
        else:
            if sum(last - first + 1 for first, last in beyond) > _MOST_SPELLED_OUT:
                raise PatternUnsupportedError("ranges of characters beyond ASCII are not supported")
            ascii_part = both(ranges, ((0, _ASCII_END),))
            written = [f"[{_written(ascii_part)}]"] if ascii_part else []
            written += [_quote(code) for first, last in beyond for code in range(first, last + 1)]
        written += escaped
        if not written:
            raise PatternUnsupportedError("a class that no character belongs to is not supported")
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


def _bounds(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _has(ranges: Ranges, code: int) -> bool:
    return any(first <= code <= last for first, last in ranges)
