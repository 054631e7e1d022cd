"""The prompts of a load, from a file."""

import json
from pathlib import Path
from typing import Any

from doherty import Message
from doherty.cli._conversation import parse_messages, parse_text

LoadPrompt = str | tuple[Message, ...]
"""One user message, or a conversation."""


def read_prompts(path: Path) -> tuple[LoadPrompt, ...]:
    """Reads one prompt per line or, if the file's name ends in .jsonl, one JSON object per line.

    An object has either "prompt", a text, or "messages", a list of objects with "role" and "content"; other
    fields are ignored, because the files of other tools have some. Empty lines are skipped.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has no prompts, or its contents do not fit its name.
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
        return parse_text(entry["prompt"])
    return tuple(parse_messages(entry["messages"]))
