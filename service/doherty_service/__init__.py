"""The gRPC server: `run(Settings(...))` serves an engine until it is told to stop."""

import os

from doherty_extras import install_command

# gRPC's core writes a line for each failed TLS handshake, and for each header that it cannot parse, of which a caller
# without a key can send thousands in a frame. It reads the variable when it is loaded, as the imports below do. Whoever
# looks for a fault there can set another value.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    from doherty_service.lifecycle import run
    from doherty_service.settings import Settings
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("doherty"):
        raise
    raise ModuleNotFoundError(
        f"doherty_service needs {error.name}, of the extra server: run `{install_command('server')}`", name=error.name
    ) from error

__all__ = ["Settings", "run"]
