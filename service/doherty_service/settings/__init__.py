"""Settings: flags override environment variables, which override the config file."""

from doherty_service.settings._addresses import is_loopback
from doherty_service.settings._environment import (
    CLIENT_VARIABLES,
    CONFIG_VARIABLE,
    PREFIX,
    unknown_variables,
    variable_of,
)
from doherty_service.settings._print_config import as_toml, sources
from doherty_service.settings._settings import Settings

__all__ = [
    "CLIENT_VARIABLES",
    "CONFIG_VARIABLE",
    "PREFIX",
    "Settings",
    "as_toml",
    "is_loopback",
    "sources",
    "unknown_variables",
    "variable_of",
]
