"""What the server needs of a transport. There are two: grpcio and http2."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from doherty_service.security import Certificates

if TYPE_CHECKING:  # generic for type checkers only
    Handler = grpc.RpcMethodHandler[Any, Any]
    GenericHandler = grpc.GenericRpcHandler
else:
    Handler, GenericHandler = grpc.RpcMethodHandler, grpc.GenericRpcHandler


class RpcServer(Protocol):
    """A gRPC server with handlers, an address and connections."""

    def add_generic_rpc_handlers(self, handlers: Iterable[GenericHandler]) -> None:
        """Adds services. gRPC's generated code calls this."""
        ...

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Adds the methods of a service. gRPC's generated code calls this."""
        ...

    def listen(self, address: str, certificates: Certificates | None) -> int:
        """Binds HOST:PORT, with TLS if there are certificates, and returns the actual port.

        Raises:
            OSError: The address cannot be bound.
            RuntimeError: The same, without a reason.
        """
        ...

    async def start(self) -> None:
        """Begins to serve."""
        ...

    def stop_listening(self) -> None:
        """Accepts no more connections. Existing connections continue."""
        ...

    def retire(self) -> None:
        """Asks all callers to connect elsewhere, if the transport can. Calls in progress may finish."""
        ...

    async def replies_sent(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns at the timeout, without an error
        """Waits until the calls that are open now have ended, at most for `timeout` seconds."""
        ...

    async def stop(self, grace: float) -> None:
        """Stops serving; calls may take up to `grace` seconds to finish."""
        ...

    def count_connections(self) -> int:
        """Returns the number of open connections. Thread-safe."""
        ...
