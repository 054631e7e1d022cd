"""Formats the effective settings as an equivalent TOML file."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from doherty_service._version import server_version
from doherty_service.settings._config_file import read_config
from doherty_service.settings._environment import CONFIG_VARIABLE, variable_of
from doherty_service.settings._settings import Settings

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def sources(flags: Mapping[str, object]) -> dict[str, str]:
    """Returns the source of each setting's value, for example "flag --listen" or "default"."""
    path = os.environ.get(CONFIG_VARIABLE)
    file = read_config(Path(path)) if path else {}
    variables = {name.upper() for name in os.environ}

    def source(name: str) -> str:
        variable = variable_of(name)
        if name in flags:
            return f"flag --{name.replace('_', '-')}"
        if variable in variables:
            return f"environment {variable}"
        return f"file {path}" if name in file else "default"

    return {name: source(name) for name in Settings.model_fields}


def as_toml(settings: Settings, source_of: Mapping[str, str]) -> str:
    """Formats the settings as TOML, each with its source. Settings without a value are commented out.

    No setting is a secret: keys and certificates are files, and only their paths are settings.
    """
    lines = [f"# doherty serve {server_version()}: the effective settings and their sources"]
    tables: list[str] = []
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            pairs = [f"{_key(key)} = {_value(entry)}" for key, entry in value.items()]
            tables += ["", f"[{name}]  # {source_of[name]}", *pairs]
        elif value is None:
            lines.append(f"# {name} is not set  # {source_of[name]}")
        else:
            lines.append(f"{name} = {_value(value)}  # {source_of[name]}")
    return "\n".join([*lines, *tables, ""])


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: object) -> str:
    """Formats a value as JSON. TOML's numbers, booleans, lists and strings are the same, except for U+007F."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
