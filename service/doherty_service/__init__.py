"""The gRPC server: `run(Settings(...))` serves an engine until the process gets SIGTERM or SIGINT."""

import os

from doherty_extras import install_command

# gRPC's core logs a line for each failed TLS handshake and for each header that it cannot parse. A caller without a key
# can send thousands of such headers in one frame. The core reads this variable when the imports below load it. Set
# another value to debug gRPC.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    from doherty_service.lifecycle import run
    from doherty_service.settings import Settings
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("doherty"):
        raise
    raise ModuleNotFoundError(
        f"doherty_service needs {error.name}, which the extra 'server' installs: run `{install_command('server')}`",
        name=error.name,
    ) from error

__all__ = ["Settings", "run"]
