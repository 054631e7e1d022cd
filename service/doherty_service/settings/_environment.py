"""Tells settings from other environment variables that begin with DOHERTY_, and finds misspelt ones."""

import re
from collections.abc import Iterable, Mapping

PREFIX = "DOHERTY_"

CONFIG_VARIABLE = "DOHERTY_CONFIG"
"""The path of the TOML file; the flag --config sets the same."""

CLIENT_VARIABLES = frozenset({"DOHERTY_API_KEY", "DOHERTY_LOG", "DOHERTY_TARGET", "DOHERTY_TLS_CA"})
"""Variables of the SDK and the command line. A server's environment may contain them, too."""

_SERVICE_LINK = re.compile(
    r"DOHERTY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"DOHERTY_(\w+_)?PORT")
"""Kubernetes sets these variables in every container of a namespace that has a Service named doherty..."""


def variable_of(setting: str) -> str:
    """Returns the environment variable of a setting, for example "DOHERTY_LISTEN"."""
    return f"{PREFIX}{setting.upper()}"


def unknown_variables(environment: Mapping[str, str], settings: Iterable[str]) -> list[str]:
    """Returns the DOHERTY_* variables that neither the server nor the SDK reads; they are probably misspelt."""
    known = {*map(variable_of, settings)} | CLIENT_VARIABLES | {CONFIG_VARIABLE}
    return [
        name
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_service_link(name, value)
    ]


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set the variable. Its DOHERTY_PORT is a URL; a DOHERTY_PORT=50051 is a user's mistake."""
    return bool(_SERVICE_LINK.fullmatch(name) or (_SERVICE_URL.fullmatch(name) and "://" in value))
