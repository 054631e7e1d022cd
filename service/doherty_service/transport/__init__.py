"""The gRPC server: its options, its services, its address, and its event loop."""

from doherty_service.transport._grpc_options import grpc_options
from doherty_service.transport._health import HealthServicer
from doherty_service.transport._leaving import replies_sent
from doherty_service.transport._poller import Loop, calm_poller
from doherty_service.transport._port_watch import TransportLostError, watch_port
from doherty_service.transport._server import bind, build_server

__all__ = [
    "HealthServicer",
    "Loop",
    "TransportLostError",
    "bind",
    "build_server",
    "calm_poller",
    "grpc_options",
    "replies_sent",
    "watch_port",
]
