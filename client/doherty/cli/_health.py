"""The command `doherty health`."""

from typing import Final

import click
import grpc

from doherty._core._channel import CHANNEL_OPTIONS
from doherty._core._readiness import Readiness, decode_status, encode_service, status_name
from doherty._core._translate import translate
from doherty.cli._connect import Server, failures_told, server_options
from doherty.cli._exit import NOT_SERVING

_CHECK: Final = "/grpc.health.v1.Health/Check"


@click.command()
@server_options(timeout=5)
@click.pass_context
def health(context: click.Context, *, server: Server) -> None:
    """Tell whether the server serves.

    Prints the status of the server's health service, and exits with 0 only for SERVING.
    """
    with failures_told():
        status = _check(server.target, server.timeout)
    click.echo(status)
    if status != "SERVING":
        context.exit(NOT_SERVING)


def _check(target: str, timeout: float) -> str:
    """Asks once: unlike `Client.wait_ready`, which waits for a better answer."""
    with grpc.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        check = channel.unary_unary(_CHECK, encode_service, decode_status)
        try:
            number = check(Readiness.request, timeout=timeout).value
        except grpc.RpcError as error:
            raise translate(error, target=target, connectivity="not connected") from error
    return status_name(number)
