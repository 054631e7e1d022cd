"""Turns the parameters of a call into the message that goes over the wire."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from doherty._core._options import GenerateOptions
from doherty._core._prompt import Prompt, TextPrompt, TokenIds, put_prompt
from doherty._core._put import put
from doherty._core._schema import Schema, schema_text
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.latency_service_pb2 import GetLatencyRequest
from doherty.v1.request_pb2 import GenerateRequest, Priority

_PRIORITIES: Final = {"interactive": Priority.PRIORITY_INTERACTIVE, "batch": Priority.PRIORITY_BATCH}
_NO_OPTIONS: Final = GenerateOptions()


def generate_request(  # noqa: PLR0913 - one parameter each for those of `generate`
    prompt: Prompt,
    *,
    system: str | None,
    temperature: float | None,
    top_p: float | None,
    max_output_tokens: int | None,
    stop: str | Sequence[str] | None,
    seed: int | None,
    schema: Schema | None,
    adapter: str | None,
    time_limit: float | None,
    request_id: str | None,
    options: GenerateOptions | None,
) -> GenerateRequest:
    """Builds the request for one answer.

    Ranges are left to the server, which knows them; what could not be sent at all is refused here.

    Raises:
        TypeError: A parameter has a type that its field cannot take.
        ValueError: A parameter has a value that its field cannot hold, or contradicts another one.
    """
    more = options or _NO_OPTIONS
    request = GenerateRequest()
    put_prompt(request, prompt, system)
    put(request, request_id=request_id, model=more.model, adapter=adapter)
    put(
        request.sampling,
        temperature=temperature,
        top_p=top_p,
        top_k=more.top_k,
        min_p=more.min_p,
        frequency_penalty=more.frequency_penalty,
        presence_penalty=more.presence_penalty,
        repetition_penalty=more.repetition_penalty,
        seed=seed,
    )
    put(
        request.stopping,
        max_output_tokens=max_output_tokens,
        min_output_tokens=more.min_output_tokens,
        stop_texts=(stop,) if isinstance(stop, str) else stop or None,
        stop_token_ids=more.stop_token_ids or None,
        include_stop_text=more.include_stop_text or None,
        ignore_eos=more.ignore_eos or None,
    )
    if time_limit is not None:
        request.stopping.time_limit.FromTimedelta(_seconds("time_limit", time_limit))
    put(request.output, token_ids=more.token_ids or None, top_logprobs=more.top_logprobs)
    _put_constraint(request, schema, more)
    if more.priority is not None:
        if more.priority not in _PRIORITIES:
            raise ValueError(f"priority is one of {', '.join(_PRIORITIES)}, not {more.priority!r}.")
        request.priority = _PRIORITIES[more.priority]
    if more.continue_from is not None:
        _put_held_part(request, more.continue_from)
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


def _put_held_part(request: GenerateRequest, held: str | TokenIds) -> None:
    """Sets the part of the answer that the caller holds; an empty one too, which is none."""
    request.continue_from.SetInParent()
    if isinstance(held, TokenIds):
        put(request.continue_from, token_ids=held.ids)
    else:
        put(request.continue_from, text=held)


def _put_constraint(request: GenerateRequest, schema: Schema | None, options: GenerateOptions) -> None:
    forms = {
        "schema": schema,
        "regex": options.regex,
        "grammar": options.grammar,
        "choices": options.choices,
    }
    given = [name for name, form in forms.items() if form is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: an answer can be held to one form.")
    put(request.constraint, regex=options.regex, grammar=options.grammar)
    if schema is not None:
        if isinstance(options.continue_from, TokenIds):
            raise ValueError("schema= reads the answer, and that needs the text of continue_from, not its token ids.")
        put(request.constraint, json_schema=schema_text(schema))
    if options.choices is not None:
        request.constraint.choices.SetInParent()
        put(request.constraint.choices, choices=options.choices)


def _seconds(name: str, value: float) -> timedelta:
    try:
        return timedelta(seconds=value)
    except (OverflowError, TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}= is a number of seconds, not {value!r}.") from error
