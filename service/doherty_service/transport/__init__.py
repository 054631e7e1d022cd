"""The gRPC server: options, services, address, connections and event loop."""

from doherty_service.transport._connection_count import count_connections
from doherty_service.transport._connections import ConnectionGuard, room_for_connections
from doherty_service.transport._grpc_options import grpc_options
from doherty_service.transport._health import HealthServicer
from doherty_service.transport._leaving import replies_sent
from doherty_service.transport._loop import ServerLoop
from doherty_service.transport._loop_lag import measure_lag
from doherty_service.transport._poller import calm_poller
from doherty_service.transport._port import Port
from doherty_service.transport._port_watch import TransportLostError, watch_port
from doherty_service.transport._server import (
    bind_plaintext,
    build_server,
    generation_servicer,
    read_certificates,
    read_keyring,
)

__all__ = [
    "ConnectionGuard",
    "HealthServicer",
    "Port",
    "ServerLoop",
    "TransportLostError",
    "bind_plaintext",
    "build_server",
    "calm_poller",
    "count_connections",
    "generation_servicer",
    "grpc_options",
    "measure_lag",
    "read_certificates",
    "read_keyring",
    "replies_sent",
    "room_for_connections",
    "watch_port",
]
