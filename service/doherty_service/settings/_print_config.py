"""Shows the effective settings as the TOML file that would have the same effect."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from doherty_service._version import server_version
from doherty_service.settings._environment import CONFIG_VARIABLE, variable_of
from doherty_service.settings._settings import Settings, read_config

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def sources(flags: Mapping[str, object]) -> dict[str, str]:
    """Where the value of each setting comes from."""
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


def as_toml(settings: Settings, found: Mapping[str, str]) -> str:
    """The settings as TOML, each with its source; one that is not set is commented out.

    No setting is a secret: keys and certificates are files, and only their paths are settings.
    """
    lines = [f"# doherty serve {server_version()}: the effective settings, and where each comes from"]
    tables: list[str] = []
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            pairs = [f"{_key(key)} = {_value(one)}" for key, one in value.items()]
            tables += ["", f"[{name}]  # {found[name]}", *pairs]
        elif value is None:
            lines.append(f"# {name} is not set  # {found[name]}")
        else:
            lines.append(f"{name} = {_value(value)}  # {found[name]}")
    return "\n".join([*lines, *tables, ""])


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: object) -> str:
    """JSON and TOML write numbers, switches, lists and texts alike, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
