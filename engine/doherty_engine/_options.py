"""How an engine declares an option that a deployment may set."""

from collections.abc import Callable
from dataclasses import field
from typing import TypeVar

T = TypeVar("T")


def option(default: T, parse: Callable[[str], T], description: str) -> T:
    """A field of an engine's Options dataclass: its default, how its text is read, and one sentence for the help."""
    value: T = field(default=default, metadata={"parse": parse, "description": description})
    return value


def parse_positive(text: str) -> int:
    """Reads a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError("it must be at least 1")
    return number


def parse_count(text: str) -> int:
    """Reads a whole number from 0 on."""
    number = int(text)
    if number < 0:
        raise ValueError("it must be 0 or above")
    return number


def parse_share(text: str) -> float:
    """Reads a share, above 0 and at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise ValueError("it must be above 0 and at most 1")
    return number


def parse_adapters(text: str) -> tuple[tuple[str, str], ...]:
    """Reads LoRA adapters: NAME=PATH, several with commas between, each name once."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, separator, path = part.partition("=")
        if not separator or not name or not path or name in pairs:
            raise ValueError("it must be NAME=PATH, several with commas between, each name once")
        pairs[name] = path
    return tuple(pairs.items())


def parse_bool(text: str) -> bool:
    """Reads a switch: 1/0, true/false, yes/no, on/off."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError("it is a switch, so say true or false") from None
