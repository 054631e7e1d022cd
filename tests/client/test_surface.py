"""The public names and signatures of the package."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import doherty
from doherty import AsyncClient, AsyncGenerationStream, Client, GenerationStream
from doherty._core import _errors

NAMES = [
    "NOT_GIVEN",
    "AsyncClient",
    "AsyncGenerationStream",
    "AsyncMap",
    "AuthenticationError",
    "CancelledByServerError",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "Delta",
    "DohertyError",
    "EndedRequests",
    "EventLoopError",
    "FieldViolation",
    "FinishReason",
    "ForkError",
    "GenerateOptions",
    "Generation",
    "GenerationStream",
    "Health",
    "InternalError",
    "InvalidRequestError",
    "KeyRefusals",
    "KeyRequests",
    "Latency",
    "Limits",
    "MapResult",
    "Message",
    "Metadata",
    "ModelInfo",
    "NotFoundError",
    "NotGiven",
    "Outcome",
    "OverloadedError",
    "ParseError",
    "PermissionDeniedError",
    "Prompt",
    "Quantiles",
    "RawText",
    "ReplyMetadata",
    "RetryPolicy",
    "Role",
    "RpcError",
    "SamplingDefaults",
    "ServerLost",
    "Speculation",
    "StreamError",
    "StreamEvent",
    "StreamFinished",
    "StreamResumed",
    "StreamStarted",
    "TLSConfig",
    "Timings",
    "TokenIds",
    "TokenLogprob",
    "TopLogprob",
    "UnavailableError",
    "UnsupportedError",
    "Usage",
    "__version__",
]


def test_the_public_names_are_these() -> None:
    assert doherty.__all__ == NAMES
    assert set(NAMES) <= set(dir(doherty))
    for name in NAMES:
        assert getattr(doherty, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'doherty' has no attribute 'Clinet'"):
        _ = doherty.Clinet  # pyright: ignore[reportAttributeAccessIssue]


def test_the_package_is_typed() -> None:
    assert (Path(doherty.__file__).parent / "py.typed").is_file()


def _public(owner: type) -> dict[str, Any]:
    """Returns the public members; those of the asynchronous client have the names of the other client."""
    return {
        re.sub(r"^__a(enter|exit|iter|next)__$", r"__\1__", name): member
        for name, member in vars(owner).items()
        if not name.startswith("_") or re.match(r"^__a?(init|enter|exit|iter|next|del)__$", name)
    }


def _signature(member: Any) -> str:
    """Returns the signature, with the names of the asynchronous client replaced by those of the other client."""
    function: Any = member.fget if isinstance(member, property) else member
    names = str(inspect.signature(function)).replace("_aio", "_sync")
    return re.sub(r"\bAsync(?=Client|GenerationStream|Iterator)", "", names)


@pytest.mark.parametrize(("first", "other"), [(Client, AsyncClient), (GenerationStream, AsyncGenerationStream)])
def test_twins_have_the_same_members_and_signatures(first: type, other: type) -> None:
    members, twins = _public(first), _public(other)
    # `map` must be able to cancel the calls that it starts, and threads cannot be cancelled.
    twins.pop("map", None)
    assert list(members) == list(twins)
    for name, member in members.items():
        if name == "__init__" and first is GenerationStream:
            continue  # only clients create streams
        assert isinstance(member, property) is isinstance(twins[name], property), name
        signature = _signature(twins[name])
        if first is Client:
            signature = re.sub(r", multiplex: [^,]*?(?=[,)])", "", signature)  # which needs an event loop
        assert _signature(member) == signature, name


def test_asynchronous_methods_are_coroutines_unless_they_only_start_something() -> None:
    plain = {"__init__", "with_options", "__del__", "__iter__", "events", "map", "stream_generate"}
    for owner in (AsyncClient, AsyncGenerationStream):
        for name, member in _public(owner).items():
            if not isinstance(member, property):
                assert inspect.iscoroutinefunction(member) is (name not in plain), name


def test_generate_and_stream_generate_have_the_same_parameters() -> None:
    for client in (Client, AsyncClient):
        generate, stream = inspect.signature(client.generate), inspect.signature(client.stream_generate)
        assert generate.parameters == stream.parameters


def test_results_are_frozen_dataclasses() -> None:
    classes = [getattr(doherty, name) for name in NAMES if dataclasses.is_dataclass(getattr(doherty, name))]
    assert len(classes) == 29
    for kind in classes:
        assert kind.__dataclass_params__.frozen, kind


def test_a_result_can_be_created_from_the_fields_that_a_test_needs() -> None:
    of_calls = {"FieldViolation", "GenerateOptions", "Message", "RawText", "RetryPolicy", "TLSConfig", "TokenIds"}
    for name in set(NAMES) - of_calls:
        if dataclasses.is_dataclass(getattr(doherty, name)):
            assert getattr(doherty, name)() == getattr(doherty, name)(), name
    answer = doherty.Generation(text="hi")
    assert (str(answer), answer.parsed, answer.finish_reason) == ("hi", None, "stop")
    assert doherty.ModelInfo(model="m").limits == doherty.Limits()


def test_the_tree_of_exceptions_is_the_one_in_the_document() -> None:
    drawn = re.findall(r"^\W*(\w+Error)\b", str(_errors.__doc__), re.MULTILINE)
    errors = [getattr(doherty, name) for name in NAMES if name.endswith("Error")]
    assert sorted(drawn) == sorted(error.__name__ for error in errors)
    assert all(issubclass(error, doherty.DohertyError) for error in errors)
    below_rpc = re.findall(r"│   \W+(\w+Error)", str(_errors.__doc__))
    assert set(below_rpc) == {error.__name__ for error in doherty.RpcError.__subclasses__()}
    assert issubclass(doherty.UnavailableError, ConnectionError)
    assert issubclass(doherty.DeadlineExceededError, TimeoutError)


def test_the_command_uses_only_public_names() -> None:
    folder = Path(str(doherty.__file__)).parent / "cli"
    private = re.compile(r"\bdoherty\._|^from doherty import .*\b_(?!_version__)", re.MULTILINE)
    assert not [path.name for path in folder.rglob("*.py") if private.search(path.read_text(encoding="utf-8"))]
