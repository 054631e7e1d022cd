"""The requests that a fake server received, with the names of the SDK."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from doherty._core._from_wire import optional
from doherty._core._options import GenerateOptions
from doherty._core._prompt import Message, Prompt, RawText, Role, TokenIds
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.request_pb2 import Constraint, ContinueFrom, GenerateRequest, Priority
from doherty.v1.request_pb2 import Message as WireMessage
from doherty.v1.request_pb2 import Role as WireRole

Rpc = Literal["Generate", "StreamGenerate", "MultiplexGenerate", "CountTokens"]

_ROLES: Final[dict[int, Role]] = {
    WireRole.ROLE_SYSTEM: "system",
    WireRole.ROLE_USER: "user",
    WireRole.ROLE_ASSISTANT: "assistant",
}
_PRIORITIES: Final[dict[int, Literal["interactive", "batch"]]] = {
    Priority.PRIORITY_INTERACTIVE: "interactive",
    Priority.PRIORITY_BATCH: "batch",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that a server received. Fields have the names of the parameters of `generate`; None means not given."""

    rpc: Rpc = "Generate"
    """The method that was called."""
    prompt: Prompt = ""
    """A conversation is a list of `Message`. With `system=`, a single message of the user is a str."""
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: Any = None
    """The JSON Schema as Python objects."""
    adapter: str | None = None
    time_limit: float | None = None
    timeout: float | None = None
    """The seconds that were left when the request arrived. gRPC rounds them up to about three digits."""
    request_id: str | None = None
    options: GenerateOptions = field(default_factory=GenerateOptions)
    """For streams, the client sets `token_ids` itself, to continue after a loss, unless it has `resume=False`."""
    metadata: Mapping[str, str | bytes] = field(default_factory=dict[str, "str | bytes"], repr=False)
    """The metadata of the RPC, with the API key as `authorization`. Not in the repr, which may be printed."""

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, the system message first; empty for RawText and TokenIds."""
        if isinstance(self.prompt, RawText | TokenIds):
            return []
        turns = [Message("user", self.prompt)] if isinstance(self.prompt, str) else cast("list[Message]", self.prompt)
        return [Message("system", self.system), *turns] if self.system is not None else list(turns)


def request_from_wire(
    request: GenerateRequest, rpc: Rpc, *, timeout: float | None, metadata: Mapping[str, str | bytes]
) -> Request:
    """A request for an answer."""
    prompt, system = _input(request)
    constraint = request.constraint
    return Request(
        rpc=rpc,
        prompt=prompt,
        system=system,
        temperature=optional(request.sampling, "temperature"),
        top_p=optional(request.sampling, "top_p"),
        max_output_tokens=optional(request.stopping, "max_output_tokens"),
        stop=tuple(request.stopping.stop_texts),
        seed=optional(request.sampling, "seed"),
        schema=json.loads(constraint.json_schema) if constraint.HasField("json_schema") else None,
        adapter=request.adapter or None,
        time_limit=optional(request.stopping, "time_limit"),
        timeout=timeout,
        request_id=request.request_id or None,
        options=_options(request),
        metadata=metadata,
    )


def count_request_from_wire(
    request: CountTokensRequest, *, timeout: float | None, metadata: Mapping[str, str | bytes]
) -> Request:
    """A request for a count."""
    prompt, system = _input(request)
    options = GenerateOptions(model=request.model or None)
    return Request(rpc="CountTokens", prompt=prompt, system=system, timeout=timeout, options=options, metadata=metadata)


def _input(request: GenerateRequest | CountTokensRequest) -> tuple[Prompt, str | None]:
    """The prompt, and the system message."""
    if request.HasField("prompt"):
        return request.prompt, None
    if request.HasField("raw_text"):
        return RawText(request.raw_text), None
    if isinstance(request, GenerateRequest) and request.token_ids:
        return TokenIds(tuple(request.token_ids)), None
    turns = [_message(turn) for turn in request.messages]
    if not turns or turns[0].role != "system":
        return turns, None
    system, *rest = turns
    only_user = len(rest) == 1 and rest[0].role == "user"
    return rest[0].content if only_user else rest, system.content


def _message(message: WireMessage) -> Message:
    return Message(_ROLES[message.role], message.content)


def _options(request: GenerateRequest) -> GenerateOptions:
    sampling, stopping, constraint = request.sampling, request.stopping, request.constraint
    return GenerateOptions(
        model=request.model or None,
        top_k=optional(sampling, "top_k"),
        min_p=optional(sampling, "min_p"),
        frequency_penalty=optional(sampling, "frequency_penalty"),
        presence_penalty=optional(sampling, "presence_penalty"),
        repetition_penalty=optional(sampling, "repetition_penalty"),
        min_output_tokens=optional(stopping, "min_output_tokens"),
        stop_token_ids=tuple(stopping.stop_token_ids),
        include_stop_text=stopping.include_stop_text,
        ignore_eos=stopping.ignore_eos,
        token_ids=request.output.token_ids,
        top_logprobs=optional(request.output, "top_logprobs"),
        regex=optional(constraint, "regex"),
        grammar=optional(constraint, "grammar"),
        choices=_choices(constraint),
        priority=_PRIORITIES.get(request.priority),
        continue_from=_held_part(request.continue_from),
    )


def _choices(constraint: Constraint) -> tuple[str, ...] | None:
    return tuple(constraint.choices.choices) if constraint.HasField("choices") else None


def _held_part(held: ContinueFrom) -> str | TokenIds | None:
    return TokenIds(tuple(held.token_ids)) if held.token_ids else held.text or None
