"""Imports the packages that only some engines need."""

from importlib import import_module
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_extras import install_command


def import_optional(module: str, purpose: str, *, extra: str, package: str = "") -> Any:
    """Imports a module that an extra of this distribution installs.

    Args:
        module: The module.
        purpose: What needs the module; the beginning of the error message.
        extra: The extra.
        package: The package that contains the module; empty if it has the same name.

    Raises:
        EngineSetupError: It is not installed; the message says what to do.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise EngineSetupError(
            f"{purpose} needs the package {package or module}; run `{install_command(extra)}`."
        ) from error
