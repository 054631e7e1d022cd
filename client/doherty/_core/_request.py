"""Converts the parameters of a call to the message to send."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeVar

from doherty._core._metadata import Metadata
from doherty._core._prompt import Prompt, TextPrompt, TokenIds, put_prompt
from doherty._core._put import put
from doherty._core._settings import NOT_GIVEN, CallOptions, Timeout, check_options, check_timeout
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.latency_service_pb2 import GetLatencyRequest
from doherty.v1.request_pb2 import GenerateRequest, Priority

if TYPE_CHECKING:
    from doherty._core._options import GenerateOptions
    from doherty._core._results import Generation

_PRIORITIES: Final = {"interactive": Priority.PRIORITY_INTERACTIVE, "batch": Priority.PRIORITY_BATCH}

MethodT = TypeVar("MethodT", bound=Callable[..., object])


class PlannedRequest:
    """A request for an answer, with the parts that the client itself handles: timeouts and the schema."""

    def __init__(
        self,
        request: GenerateRequest,
        schema: object,
        options: CallOptions,
        *,
        first_token_timeout: float | None,
        idle_timeout: float | None,
    ) -> None:
        """The two timeouts limit how long a reader waits for one message, in seconds; None means no limit."""
        self.request = request
        self.schema = schema
        self.options = options
        self.first_token_timeout = first_token_timeout
        self.idle_timeout = idle_timeout

    @property
    def needs_stream(self) -> bool:
        """Whether the answer must be streamed, because a timeout limits its progress."""
        return self.first_token_timeout is not None or self.idle_timeout is not None

    def parse(self, generation: "Generation[None]") -> "Generation[Any]":
        """Returns the answer, with its text parsed if there is a schema.

        Raises:
            ParseError: The text does not fit the schema.
        """
        if self.schema is None:
            return generation
        from doherty._core._schema import parse_answer  # noqa: PLC0415 - needed only with a schema

        return parse_answer(generation, self.schema, self.request.continue_from.text)


def plan_request(  # noqa: PLR0913 - the parameters of `generate`
    prompt: Prompt,
    *,
    system: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_output_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: object = None,
    adapter: str | None = None,
    time_limit: float | None = None,
    timeout: Timeout = NOT_GIVEN,
    first_token_timeout: float | None = None,
    idle_timeout: float | None = None,
    max_retries: int | None = None,
    request_id: str | None = None,
    metadata: Metadata | None = None,
    options: "GenerateOptions | None" = None,
) -> PlannedRequest:
    """Builds the request for one answer from the parameters of `generate`.

    The server checks ranges. This function refuses only values that cannot be sent.

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
        from doherty._core._schema import schema_text  # noqa: PLC0415 - needed only with a schema

        put(request.constraint, json_schema=schema_text(schema))
    if options is not None:
        _put_options(request, options)
    return PlannedRequest(
        request,
        schema,
        check_options(timeout=timeout, max_retries=max_retries, metadata=metadata),
        first_token_timeout=check_timeout(first_token_timeout, "first_token_timeout"),
        idle_timeout=check_timeout(idle_timeout, "idle_timeout"),
    )


def shows_parameters(method: MethodT) -> MethodT:
    """Gives a method the signature of `plan_request`, to which it passes its parameters, for help() and for shells."""
    shown = signature(method)
    parameters = (shown.parameters["self"], *signature(plan_request).parameters.values())
    vars(method)["__signature__"] = shown.replace(parameters=parameters)
    return method


def shows_options(method: MethodT) -> MethodT:
    """Shows the parameters of `check_options` in the same way."""
    shown = signature(method)
    own = [parameter for parameter in shown.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    vars(method)["__signature__"] = shown.replace(parameters=(*own, *signature(check_options).parameters.values()))
    return method


def count_request(prompt: TextPrompt, *, system: str | None, model: str | None) -> CountTokensRequest:
    """Builds the request for a count, with the checks of `plan_request`."""
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


def _put_options(request: GenerateRequest, options: "GenerateOptions") -> None:
    """Sets the fields of a request from the options.

    Raises:
        TypeError: `options` is not a GenerateOptions, or an option has a type that its field cannot take.
        ValueError: An option has a value that its field cannot hold, or contradicts another parameter.
    """
    from doherty._core._options import GenerateOptions  # noqa: PLC0415 - a caller with options has imported it already

    if not isinstance(options, GenerateOptions):
        raise TypeError(f"options= is a GenerateOptions, not {type(options).__name__}.")
    put(request, model=options.model)
    put(
        request.sampling,
        top_k=options.top_k,
        min_p=options.min_p,
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        repetition_penalty=options.repetition_penalty,
    )
    put(
        request.stopping,
        min_output_tokens=options.min_output_tokens,
        stop_token_ids=options.stop_token_ids or None,
        include_stop_text=options.include_stop_text or None,
        ignore_eos=options.ignore_eos or None,
    )
    put(request.output, token_ids=options.token_ids or None, top_logprobs=options.top_logprobs)
    _put_constraint(request, options)
    if options.priority is not None:
        if options.priority not in _PRIORITIES:
            raise ValueError(f"priority is one of {', '.join(_PRIORITIES)}, not {options.priority!r}.")
        request.priority = _PRIORITIES[options.priority]
    if options.continue_from is not None:
        _put_held_part(request, options.continue_from)


def _put_constraint(request: GenerateRequest, options: "GenerateOptions") -> None:
    forms = {
        "schema": request.constraint.json_schema or None,
        "regex": options.regex,
        "grammar": options.grammar,
        "choices": options.choices,
    }
    given = [name for name, form in forms.items() if form is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: an answer can have only one constraint.")
    put(request.constraint, regex=options.regex, grammar=options.grammar)
    if options.choices is not None:
        request.constraint.choices.SetInParent()
        put(request.constraint.choices, choices=options.choices)


def _put_held_part(request: GenerateRequest, held: str | TokenIds) -> None:
    """Sets `continue_from`. An empty part has the same effect as none."""
    request.continue_from.SetInParent()
    if not isinstance(held, TokenIds):
        put(request.continue_from, text=held)
    elif request.constraint.json_schema:
        raise ValueError("schema= reads the answer, and that needs the text of continue_from, not its token ids.")
    else:
        put(request.continue_from, token_ids=held.ids)


def _seconds(name: str, value: float) -> timedelta:
    try:
        return timedelta(seconds=value)
    except (OverflowError, TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}= is a number of seconds, not {value!r}.") from error
