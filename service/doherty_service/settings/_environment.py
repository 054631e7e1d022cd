"""Which of the variables DOHERTY_* are settings, which belong to others, and which are misspelt."""

import re
from collections.abc import Iterable, Mapping

PREFIX = "DOHERTY_"

CONFIG_VARIABLE = "DOHERTY_CONFIG"
"""Names the TOML file; so does the flag --config."""

CLIENT_VARIABLES = frozenset({"DOHERTY_API_KEY", "DOHERTY_TARGET", "DOHERTY_TLS_CA"})
"""Those of the SDK and of the command, which a server's environment may have, too."""

_SERVICE_LINK = re.compile(
    r"DOHERTY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"DOHERTY_(\w+_)?PORT")
"""What Kubernetes puts into the environment of every container beside a Service whose name begins with doherty."""


def variable_of(setting: str) -> str:
    """The variable of a setting, as "DOHERTY_LISTEN"."""
    return f"{PREFIX}{setting.upper()}"


def unknown_variables(environment: Mapping[str, str], settings: Iterable[str]) -> list[str]:
    """The variables that nobody reads: most likely misspelt."""
    known = {*map(variable_of, settings)} | CLIENT_VARIABLES | {CONFIG_VARIABLE}
    return [
        name
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_service_link(name, value)
    ]


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set it: its DOHERTY_PORT is a URL, and a person's DOHERTY_PORT=50051 is a mistake."""
    return bool(_SERVICE_LINK.fullmatch(name) or (_SERVICE_URL.fullmatch(name) and "://" in value))
