"""Checks that the deployment supports all fields of a request, and serves its model and adapter."""

from collections.abc import Iterator

from google.protobuf.message import Message

from doherty.v1 import request_pb2
from doherty_engine import ModelInfo
from doherty_service._errors import NotFoundError, UnsupportedFieldError

SERVER_FEATURES = frozenset({"model", "priority", "request_id"})
"""The paths of the fields that the server supports with any engine."""

_GROUPS = frozenset({"constraint", "continue_from", "output", "sampling", "stopping"})
"""Fields that only group other fields. A feature is a field inside of them."""

_MAX_NAME = 100
"""Maximum number of characters of an unknown name that an error message repeats."""


def check_supported(wire: request_pb2.GenerateRequest, model: ModelInfo) -> None:
    """Checks that the engine or the server supports all fields that are set.

    Raises:
        UnsupportedFieldError: A field is not supported; names the first one.
    """
    for path in _paths_set(wire):
        if path not in model.features and path not in SERVER_FEATURES:
            raise UnsupportedFieldError(path)


def _paths_set(wire: Message, prefix: str = "") -> Iterator[str]:
    """The paths of all fields that are set, in the notation of GetModelResponse.features."""
    for field, value in wire.ListFields():
        if not prefix and field.name in _GROUPS:
            yield from _paths_set(value, f"{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def check_adapter(name: str, model: ModelInfo) -> None:
    """Checks the adapter that a request names, if it names one.

    Raises:
        NotFoundError: It is not served.
    """
    if name and name not in model.adapters:
        served = ", ".join(model.adapters) or "none"
        raise NotFoundError("ADAPTER_NOT_FOUND", f"there is no adapter {name[:_MAX_NAME]!r}; this server has {served}")


def check_model(name: str, model: ModelInfo) -> None:
    """Checks the model that a request names, if it names one.

    Raises:
        NotFoundError: It is not served.
    """
    if name and name != model.model:
        raise NotFoundError("MODEL_NOT_FOUND", f"the model {name[:_MAX_NAME]!r} is not served here; {model.model!r} is")
