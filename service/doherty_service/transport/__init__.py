"""The gRPC server: options, services, address, connections and event loop."""

from doherty_service.transport._connections import ConnectionGuard
from doherty_service.transport._file_limit import room_for_connections
from doherty_service.transport._grpc_options import grpc_options
from doherty_service.transport._grpcio_server import GrpcioServer
from doherty_service.transport._health import HealthServicer
from doherty_service.transport._loop import ServerLoop
from doherty_service.transport._loop_lag import measure_lag
from doherty_service.transport._port import Port
from doherty_service.transport._port_watch import TransportLostError, watch_port
from doherty_service.transport._server import (
    available_transport,
    bind_plaintext,
    build_server,
    generation_servicer,
    read_certificates,
    read_keyring,
)

__all__ = [
    "ConnectionGuard",
    "GrpcioServer",
    "HealthServicer",
    "Port",
    "ServerLoop",
    "TransportLostError",
    "available_transport",
    "bind_plaintext",
    "build_server",
    "generation_servicer",
    "grpc_options",
    "measure_lag",
    "read_certificates",
    "read_keyring",
    "room_for_connections",
    "watch_port",
]
