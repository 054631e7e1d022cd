"""Builds the gRPC server: options, interceptor and services."""

from collections.abc import Callable
from typing import Any, Literal

from grpc_health.v1 import health, health_pb2_grpc

from doherty.v1 import generation_service_pb2_grpc, latency_service_pb2_grpc
from doherty_engine import EngineSetupError, SamplingDefaults
from doherty_extras import install_command
from doherty_service.admission import Shares
from doherty_service.generation import Generations
from doherty_service.load import LOAD_SERVICE, LoadMeter, LoadServicer, add_load_service
from doherty_service.rpc import EndWatch, LatencyInterceptor, ReceiveWatch, Reporter
from doherty_service.security import (
    CacheSalts,
    CertificateError,
    CertificateFiles,
    Certificates,
    Keyring,
    KeysFileError,
    Limits,
)
from doherty_service.servicers import Bounds, GenerationServicer, LatencyServicer
from doherty_service.settings import Settings, is_loopback
from doherty_service.telemetry import LatencyRecorder, log_warning
from doherty_service.translation import Deployment
from doherty_service.transport._connections import ConnectionGuard
from doherty_service.transport._debugging import CHANNELZ_SERVICE, REFLECTION_SERVICES, add_channelz, add_reflection
from doherty_service.transport._file_limit import connections_to_accept
from doherty_service.transport._grpcio_server import GrpcioServer
from doherty_service.transport._health import HealthServicer
from doherty_service.transport._port_watch import try_to_bind
from doherty_service.transport._rpc_server import RpcServer
from doherty_service.transport._services import SERVICES

_MAX_CHANNELZ_CALLS = 4
"""Maximum number of concurrent calls of channelz, most of which wait."""


def build_server(  # noqa: PLR0913, PLR0917 - the parts of the server
    settings: Settings,
    generations: Generations,
    servicer: GenerationServicer,
    recorder: LatencyRecorder,
    health_servicer: HealthServicer,
    reporter: Reporter,
    receive_watch: ReceiveWatch,
    guard: ConnectionGuard,
    keyring: Keyring | None,
    load_meter: LoadMeter,
) -> tuple[Callable[[], RpcServer], EndWatch]:
    """Returns what makes a server that is not yet bound to an address, and the watch of its RPCs' ends.

    With a keyring, callers need a key.
    """
    access = {
        health.SERVICE_NAME: settings.health,
        **dict.fromkeys(REFLECTION_SERVICES, settings.reflection),
        CHANNELZ_SERVICE: settings.channelz if settings.transport == "grpcio" else "off",
        LOAD_SERVICE: settings.load_reports,
    }
    interceptor = LatencyInterceptor(
        reporter,
        receive_watch,
        keyring=keyring,
        open_services=[name for name, who in access.items() if who == "open"],
        accept=guard.accept,
        close=guard.close,
        refusals=recorder.refusals,
        costly_services={CHANNELZ_SERVICE: Shares(_MAX_CHANNELZ_CALLS, recorder.refusals)},
        load=None if settings.load_reports == "off" else lambda: load_meter.for_calls,
    )

    def make() -> RpcServer:
        server = new_server(settings, interceptor)
        handlers: Any = server  # the types of generated code know grpc.Server only
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, handlers)
        latency_service_pb2_grpc.add_LatencyServiceServicer_to_server(LatencyServicer(recorder, generations), handlers)
        if settings.health != "off":
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, handlers)
        if access[CHANNELZ_SERVICE] != "off":
            add_channelz(server)
        if settings.load_reports != "off":
            add_load_service(server, LoadServicer(load_meter, generations.draining))
        if settings.reflection != "off":
            # Reflection cannot describe the load service, because it has no descriptor.
            described = [name for name, who in access.items() if who != "off" and name != LOAD_SERVICE]
            add_reflection(server, [*SERVICES, *described])
        return server

    return make, interceptor.end_watch


def new_server(settings: Settings, interceptor: LatencyInterceptor) -> RpcServer:
    """Returns a server without services, on the transport that the settings choose."""
    if settings.transport == "grpcio":
        return GrpcioServer(interceptor, settings)
    # Its library is not installed everywhere.
    from doherty_service.http2 import Http2Server, Limits, Timeouts  # noqa: PLC0415

    limits = Limits(
        settings.max_message_bytes, settings.max_concurrent_streams, connections_to_accept(settings.max_connections)
    )
    return Http2Server(interceptor, limits, Timeouts(settings.idle_timeout, settings.max_connection_age))


def available_transport(settings: Settings) -> Literal["grpcio", "http2"]:
    """Returns the transport to use: that of the settings, or grpcio if the library for HTTP/2 cannot be loaded."""
    if settings.transport == "http2":
        try:
            import doherty_service.http2  # noqa: F401, PLC0415 - whether it can be loaded
        except ImportError as error:
            log_warning("transport_missing", transport="http2", error=str(error), install=install_command("http2"))
            return "grpcio"
    return settings.transport


def generation_servicer(
    settings: Settings, generations: Generations, reporter: Reporter, receive_watch: ReceiveWatch
) -> GenerationServicer:
    """Returns the servicer that answers requests, both of callers and of gateways."""
    deployment = Deployment(
        max_output_tokens=settings.max_output_tokens,
        system_prompt=settings.system_prompt,
        sampling=SamplingDefaults(temperature=settings.temperature, top_p=settings.top_p),
        control_tokens=settings.allow_control_tokens,
    )
    return GenerationServicer(
        generations,
        deployment,
        CacheSalts(shared=settings.share_prefix_cache),
        Bounds(settings.max_queued_requests, settings.max_message_bytes, settings.max_concurrent_streams),
        reporter,
        receive_watch,
    )


def read_keyring(settings: Settings, recorder: LatencyRecorder) -> Keyring | None:
    """Reads the keys file; returns None if callers need no key.

    Raises:
        EngineSetupError: The keys file cannot be used.
    """
    if settings.keys_file is None:
        return None
    defaults = Limits(settings.key_max_concurrent, settings.key_per_minute, settings.key_tokens_per_minute)
    try:
        return Keyring(settings.keys_file, recorder.refusals, defaults)
    except KeysFileError as error:
        raise EngineSetupError(str(error)) from error


def bind(server: RpcServer, settings: Settings, certificates: Certificates | None) -> str:
    """Binds the server to its address, and returns the address with the actual port.

    Raises:
        EngineSetupError: The address cannot be bound, or it would offer plaintext to other machines without --insecure.
    """
    check_plaintext(settings, certificates)
    return _bind(settings.listen, lambda: server.listen(settings.listen, certificates))


def check_plaintext(settings: Settings, certificates: Certificates | None) -> None:
    """Checks that the server's address may be bound.

    Raises:
        EngineSetupError: It would offer plaintext to other machines without --insecure.
    """
    if certificates is None:
        _check_plaintext(settings.listen, insecure=settings.insecure, instead="give --tls-cert and --tls-key, or ")


def bind_plaintext(server: RpcServer, address: str, *, insecure: bool) -> str:
    """Binds a server to an address without encryption, and returns the address with the actual port.

    Raises:
        EngineSetupError: The address cannot be bound, or it would offer plaintext to other machines without --insecure.
    """
    _check_plaintext(address, insecure=insecure)
    return _bind(address, lambda: server.listen(address, None))


def _check_plaintext(address: str, *, insecure: bool, instead: str = "") -> None:
    """`instead` is an alternative to --insecure that the message mentions."""
    if not is_loopback(address) and not insecure:
        raise EngineSetupError(
            f"Listening on {address} would offer plaintext to other machines; {instead}use --insecure to allow it."
        )


def _bind(address: str, add_port: Callable[[], int]) -> str:
    host, _, port = address.rpartition(":")
    try:
        try_to_bind(host.strip("[]"), int(port))
        return f"{host}:{add_port()}"
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the address cannot be bound"
        raise EngineSetupError(f"Cannot listen on {address}: {reason}.") from error


def read_certificates(settings: Settings) -> Certificates | None:
    """Reads the certificates that the settings name; returns None for plaintext.

    Raises:
        EngineSetupError: They cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        return Certificates(CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
    except CertificateError as error:
        raise EngineSetupError(str(error)) from error
