"""Starts a server on Modal behind a tunnel, and finds out its address."""

from typing import TYPE_CHECKING, Final

import click

from doherty.cli._exit import Missing, Unavailable
from doherty_extras import install_command

if TYPE_CHECKING:
    from types import ModuleType

SCHEME: Final = "modal:"
"""The prefix of a target that is the name of an app on Modal."""

CLASS: Final = "Tunnel"
"""The class of deploy/modal_app.py whose method `boot` starts the server and returns its address."""


def boot(target: str) -> str:
    """Starts the server of an app, which can take minutes, and returns its address.

    Raises:
        ClickException: Modal cannot be reached, or cannot start the server.
    """
    app = target.removeprefix(SCHEME)
    modal = _import_modal()
    if not app or "," in app:
        raise click.UsageError(f"The target {target!r} is not modal:NAME, with the name of one app.")
    click.secho(f"waiting for {app} on Modal; a cold start takes a while", err=True, dim=True)
    try:
        address: str = modal.Cls.from_name(app, CLASS)().boot.remote()
    except Exception as error:  # Modal raises its own errors, and any error of the container
        raise Unavailable(f"Modal cannot start {app}: {str(error) or type(error).__name__}") from error
    return address


def _import_modal() -> "ModuleType":
    try:
        import modal  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise Missing(f"A target on Modal needs {error.name}: {install_command('modal')}") from error
    return modal
