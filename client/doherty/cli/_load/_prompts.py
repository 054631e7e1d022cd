"""The prompts of a load, from a file."""

import json
from pathlib import Path
from typing import Any

from doherty import Message

LoadPrompt = str | tuple[Message, ...]
"""One user message, or a conversation."""


def read_prompts(path: Path) -> tuple[LoadPrompt, ...]:
    """Reads one prompt a line; of a file whose name ends in .jsonl, one JSON object a line.

    An object has either "prompt", a text, or "messages", a list of objects with "role" and "content"; what else it has
    is left alone, as in the files of other tools. Empty lines are skipped.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has no prompts, or is not what its name says.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    parse = _parse_object if path.suffix == ".jsonl" else str
    prompts: list[LoadPrompt] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                prompts.append(parse(line.strip()))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise ValueError(f"{path} has no prompts")
    return tuple(prompts)


def _parse_object(line: str) -> LoadPrompt:
    entry: Any = json.loads(line)
    if not isinstance(entry, dict) or ("prompt" in entry) == ("messages" in entry):
        raise ValueError('it is no JSON object with either "prompt" or "messages"')
    if "prompt" in entry:
        return _text(entry["prompt"])
    if not isinstance(entry["messages"], list) or not entry["messages"]:
        raise TypeError('"messages" is not a list of messages')
    return tuple(map(_parse_message, entry["messages"]))


def _parse_message(message: Any) -> Message:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise TypeError('a message has "role" and "content"')
    return Message(message["role"], _text(message["content"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    value.encode()  # JSON can escape half a character, which cannot be sent
    return value
