"""Declares and parses the options of engines."""

from collections.abc import Callable
from dataclasses import field
from typing import TypeVar

T = TypeVar("T")


def option(default: T, parse: Callable[[str], T], description: str) -> T:
    """Declares a field of an engine's Options dataclass: default, parser, and one sentence for the help."""
    value: T = field(default=default, metadata={"parse": parse, "description": description})
    return value


def parse_positive(text: str) -> int:
    """Parses an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError("it must be at least 1")
    return number


def parse_count(text: str) -> int:
    """Parses an integer of at least 0."""
    number = int(text)
    if number < 0:
        raise ValueError("it must be 0 or above")
    return number


def parse_share(text: str) -> float:
    """Parses a share: a number above 0 and at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise ValueError("it must be above 0 and at most 1")
    return number


def parse_adapters(text: str) -> tuple[tuple[str, str], ...]:
    """Parses LoRA adapters: NAME=PATH, separated by commas, each name once."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, separator, path = part.partition("=")
        if not separator or not name or not path or name in pairs:
            raise ValueError("it must be NAME=PATH, separated by commas, each name once")
        pairs[name] = path
    return tuple(pairs.items())


def parse_bool(text: str) -> bool:
    """Parses a switch: 1/0, true/false, yes/no, on/off."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError("it must be true or false") from None
