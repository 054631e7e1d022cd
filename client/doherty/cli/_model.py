"""The command `doherty model`."""

from dataclasses import asdict
from typing import Final

import click

from doherty.cli._connect import ServerCommand, ServerOptions, server_options
from doherty.cli._tables import print_json, print_table

_EXAMPLES: Final = """\
\b
Examples:
  doherty model
  doherty model --json | jq -r .features[]
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@server_options(timeout=10)
def model(*, server: ServerOptions, as_json: bool) -> None:
    """Show the server's model and the features that it supports."""
    with server.connect() as client:
        info = client.model()
    if as_json:
        print_json(info.to_dict())
        return
    sampling = {name: value for name, value in asdict(info.default_sampling).items() if value is not None}
    print_table(
        [
            ("model", info.model),
            ("revision", info.revision or "-"),
            ("engine", f"{info.engine} {info.engine_version}"),
            *([("profile", info.profile)] if info.profile else []),
            ("server", info.server_version),
            *((name.replace("_", " "), f"{value:,}") for name, value in asdict(info.limits).items()),
            ("default sampling", ", ".join(f"{name} {value:g}" for name, value in sampling.items()) or "-"),
            ("adapters", ", ".join(info.adapters) or "-"),
            ("features", ", ".join(info.features)),
        ]
    )
