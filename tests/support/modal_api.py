"""Modal's API on a socket. It answers the calls that a subclass implements, and refuses all others."""

import re
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from modal_proto import api_pb2

_SERVICE: Final = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]


class NotFoundError(Exception):
    """The requested object does not exist."""


class Api(grpc.GenericRpcHandler):
    """Answers AppCreate with the method `on_app_create`, which gets the request and returns the fields of the reply."""

    def __init__(self) -> None:
        """Starts with an empty list of refused calls."""
        self.refused: list[str] = []
        """The names of calls that no method answers."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        name = handler_call_details.method.rpartition("/")[2]
        method = _SERVICE.methods_by_name[name]
        request, reply = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        answer = getattr(self, "on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), None)

        def respond(message: Any, context: grpc.ServicerContext) -> Any:
            if answer is None:
                self.refused.append(name)
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not part of this cloud")
            try:
                return reply(**answer(message))
            except NotFoundError as error:
                context.abort(grpc.StatusCode.NOT_FOUND, str(error))

        def respond_once(message: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield respond(message, context)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(respond_once, request.FromString, reply.SerializeToString)
        return grpc.unary_unary_rpc_method_handler(respond, request.FromString, reply.SerializeToString)
