"""The SDK's names for the fields of a request."""

import re
from dataclasses import fields
from typing import Final

from doherty._core._options import GenerateOptions

_PATH: Final = re.compile(
    r"\b(?:(?:sampling|stopping|output)\.(?P<field>\w+)"
    r"|constraint\.(?P<constraint>\w+)(?:\.choices)?"
    r"|(?P<top>continue_from|priority|raw_text|token_ids)(?:\.\w+)?(?=: ))"
)

_NAMES: Final = {"stop_texts": "stop", "json_schema": "schema", "raw_text": "RawText"}

_OPTIONS: Final = frozenset(field.name for field in fields(GenerateOptions))


def name_as_sdk(message: str) -> str:
    """Replaces the contract's paths in a message by the parameters of `generate` and GenerateOptions."""
    return _PATH.sub(_name, message)


def _name(path: re.Match[str]) -> str:
    if path["top"] == "token_ids":
        return "TokenIds"  # the prompt; the option is output.token_ids
    name = path["field"] or path["constraint"] or path["top"]
    return f"GenerateOptions.{name}" if name in _OPTIONS else _NAMES.get(name, name)
