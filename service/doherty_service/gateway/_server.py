"""The gRPC server for gateways, on a port of its own."""

from importlib.util import find_spec
from typing import Any, NoReturn

from doherty_engine import EngineSetupError
from doherty_extras import install_command
from doherty_service import translation
from doherty_service.generation import Generations
from doherty_service.rpc import LatencyInterceptor, ReceiveWatch, Reporter
from doherty_service.servicers import GenerationServicer
from doherty_service.settings import Settings
from doherty_service.telemetry import log_event
from doherty_service.transport import GrpcioServer, bind_plaintext

_PACKAGE = "smg_grpc_proto"


def check_door() -> None:
    """Checks that the package that the door needs is installed.

    Raises:
        EngineSetupError: It is not.
    """
    if find_spec(_PACKAGE) is None:
        raise EngineSetupError(
            f"The door for gateways needs the package smg-grpc-proto; run `{install_command('gateway')}`."
        )


async def run_door(
    settings: Settings,
    generations: Generations,
    servicer: GenerationServicer,
    reporter: Reporter,
    receive_watch: ReceiveWatch,
) -> NoReturn:
    """Serves until it is cancelled. Callers need no key, because SMG cannot send one.

    Raises:
        EngineSetupError: The address cannot be bound, or is not a loopback address and --insecure is missing.
    """
    # Not installed everywhere.
    from smg_grpc_proto.generated import vllm_engine_pb2, vllm_engine_pb2_grpc  # noqa: PLC0415

    from doherty_service.gateway._servicer import VllmEngineServicer  # noqa: PLC0415

    service = vllm_engine_pb2.DESCRIPTOR.services_by_name["VllmEngine"]
    translation.register_service(service)
    interceptor = LatencyInterceptor(reporter, receive_watch, own_services=[service.full_name])
    server = GrpcioServer(interceptor, settings)
    handlers: Any = server  # the types of generated code know grpc.Server only
    vllm_engine_pb2_grpc.add_VllmEngineServicer_to_server(VllmEngineServicer(generations, servicer), handlers)
    address = bind_plaintext(server, settings.door_listen, insecure=settings.insecure)
    await server.start()
    log_event("door_open", address=address, door=settings.door)
    await interceptor.end_watch.run(settings.stall_timeout)
    raise AssertionError("the watch runs until it is cancelled")
