"""Turns the parameters of a call into the message that goes over the wire."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from doherty._core._prompt import Prompt, TextPrompt, put_prompt
from doherty._core._put import put
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.latency_service_pb2 import GetLatencyRequest
from doherty.v1.request_pb2 import GenerateRequest

if TYPE_CHECKING:
    from doherty._core._options import GenerateOptions
    from doherty._core._schema import Schema


def generate_request(  # noqa: PLR0913 - one parameter each for those of `generate`
    prompt: Prompt,
    *,
    system: str | None,
    temperature: float | None,
    top_p: float | None,
    max_output_tokens: int | None,
    stop: str | Sequence[str] | None,
    seed: int | None,
    schema: "Schema | None",
    adapter: str | None,
    time_limit: float | None,
    request_id: str | None,
    options: "GenerateOptions | None",
) -> GenerateRequest:
    """Builds the request for one answer.

    Ranges are left to the server, which knows them; what could not be sent at all is refused here.

    Raises:
        TypeError: A parameter has a type that its field cannot take.
        ValueError: A parameter has a value that its field cannot hold, or contradicts another one.
    """
    request = GenerateRequest()
    put_prompt(request, prompt, system)
    put(request, request_id=request_id, adapter=adapter)
    put(request.sampling, temperature=temperature, top_p=top_p, seed=seed)
    put(
        request.stopping,
        max_output_tokens=max_output_tokens,
        stop_texts=(stop,) if isinstance(stop, str) else stop or None,
    )
    if time_limit is not None:
        request.stopping.time_limit.FromTimedelta(_seconds("time_limit", time_limit))
    if schema is not None:
        from doherty._core._schema import schema_text  # noqa: PLC0415 - only a schema pays for it

        put(request.constraint, json_schema=schema_text(schema))
    if options is not None:
        from doherty._core._put_options import put_options  # noqa: PLC0415 - only options pay for it

        put_options(request, options)
    return request


def count_request(prompt: TextPrompt, *, system: str | None, model: str | None) -> CountTokensRequest:
    """Builds the request for a count, with the checks of `generate_request`."""
    request = CountTokensRequest()
    put_prompt(request, prompt, system)
    put(request, model=model)
    return request


def latency_request(window: float | None) -> GetLatencyRequest:
    """Builds the request for the latency over the last `window` seconds."""
    request = GetLatencyRequest()
    if window is not None:
        request.window.FromTimedelta(_seconds("window", window))
    return request


def _seconds(name: str, value: float) -> timedelta:
    try:
        return timedelta(seconds=value)
    except (OverflowError, TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}= is a number of seconds, not {value!r}.") from error
