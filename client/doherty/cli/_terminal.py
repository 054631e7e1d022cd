"""Makes what a server has sent harmless on a terminal: a model's answer, a name, or the message of an error."""

import os
from typing import Final

_CONTROLS: Final = {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}
_TURNS: Final = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Characters that change the direction of text, so that it can be misread."""

_DROPPED: Final = dict.fromkeys(_CONTROLS | _TURNS)
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (_CONTROLS | _TURNS)}
_MAX_CHARACTERS: Final = 4_000


def harmless(text: str) -> str:
    """Removes characters that would control the terminal, because a model may generate escape sequences."""
    return text.translate(_DROPPED)


def brief(text: str) -> str:
    """Does the same for texts other than answers, and shortens them to one line of limited length."""
    line = " ".join(harmless(text[: 2 * _MAX_CHARACTERS]).split())
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}..."


def harmless_json(text: str) -> str:
    """Escapes the same characters in JSON, where they occur only in strings."""
    return text.translate(_ESCAPED)


def is_plain() -> bool:
    """Whether the environment disables colours and other styles (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def wants_color() -> bool | None:
    """Returns click's argument `color`: False means never, None means only on a terminal."""
    return False if is_plain() else None
