"""Translates groups of fields: inputs, sampling and constraints."""

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from doherty.v1 import request_pb2
from doherty_engine import (
    Choices,
    Constraint,
    Conversation,
    Grammar,
    Input,
    JsonSchema,
    Message,
    RawText,
    Regex,
    Role,
    Sampling,
    SamplingDefaults,
)
from doherty_service.translation._decimals import shortest_decimal
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._lengths import MAX_CHOICES, WireInput
from doherty_service.translation._violations import Violations

_ROLES = {
    request_pb2.ROLE_SYSTEM: Role.SYSTEM,
    request_pb2.ROLE_USER: Role.USER,
    request_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}
_MIN_REPETITION_PENALTY = 0.01
"""Logits are divided by the penalty: below this value they overflow."""


def text_input(
    wire: WireInput, deployment: Deployment, violations: Violations, *, has_token_ids: bool | None = None
) -> Input:
    """Translates the text input. `has_token_ids`: whether token ids are set; None if the message has no such field."""
    present = [wire.HasField("prompt"), len(wire.messages) > 0, wire.HasField("raw_text")]
    names = "prompt, messages or raw_text" if has_token_ids is None else "prompt, messages, raw_text or token_ids"
    violations.check(sum(present) + bool(has_token_ids) == 1, "prompt", f"exactly one input must be present: {names}")
    if wire.HasField("raw_text"):
        return RawText(wire.raw_text)
    if wire.messages:
        return conversation(wire.messages, deployment, violations, answered=has_token_ids is not None)
    return prompt_input(wire.prompt, deployment)


def prompt_input(prompt: str, deployment: Deployment) -> Conversation:
    """Makes a conversation of a prompt, with the deployment's system prompt, if there is one."""
    messages = _with_system((Message(Role.USER, prompt),), deployment)
    return Conversation(messages, "prompt", deployment.control_tokens)


def conversation(
    wire: RepeatedCompositeFieldContainer[request_pb2.Message],
    deployment: Deployment,
    violations: Violations,
    *,
    answered: bool,
) -> Conversation:
    """Translates a conversation. Without a system message, it gets the deployment's system prompt.

    A conversation that is `answered` must end with the user; one that is only counted may end with the assistant.
    """
    for index, message in enumerate(wire):
        is_known = message.role in _ROLES
        violations.check(is_known, f"messages[{index}].role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT")
        if index > 0:
            is_system = message.role == request_pb2.ROLE_SYSTEM
            violations.check(not is_system, f"messages[{index}].role", "a system message can only be the first one")
    last = len(wire) - 1
    if answered:
        is_user = wire[last].role == request_pb2.ROLE_USER
        violations.check(is_user, f"messages[{last}].role", "the last one must be user")
    else:
        is_turn = wire[last].role != request_pb2.ROLE_SYSTEM
        violations.check(is_turn, f"messages[{last}].role", "the last one must be user or assistant")
    messages = tuple(Message(_ROLES.get(message.role, Role.USER), message.content) for message in wire)
    return Conversation(_with_system(messages, deployment), control_tokens=deployment.control_tokens)


def _with_system(messages: tuple[Message, ...], deployment: Deployment) -> tuple[Message, ...]:
    if deployment.system_prompt and messages[0].role is not Role.SYSTEM:
        return (Message(Role.SYSTEM, deployment.system_prompt), *messages)
    return messages


def sampling(
    wire: request_pb2.Sampling,
    model_defaults: SamplingDefaults,
    deployment: Deployment,
    drawn_seed: int,
    violations: Violations,
) -> Sampling:
    """Returns each sampling setting from the request, else from the deployment, else from the model, else off."""
    set_fields = {
        # Callers and bounds mean decimals such as 0.01 or 0.9, which no 32-bit float equals.
        field.name: shortest_decimal(value) if field.type == field.TYPE_FLOAT else float(value)
        for field, value in wire.ListFields()
    }

    def choose(name: str, off: float) -> float:
        if name in set_fields:
            return set_fields[name]
        for defaults in (deployment.sampling, model_defaults):
            value = getattr(defaults, name)
            if value is not None:
                return float(value)
        return off

    result = Sampling(
        temperature=choose("temperature", 1.0),
        top_p=choose("top_p", 1.0),
        top_k=int(choose("top_k", 0)),
        min_p=choose("min_p", 0.0),
        frequency_penalty=choose("frequency_penalty", 0.0),
        presence_penalty=choose("presence_penalty", 0.0),
        repetition_penalty=choose("repetition_penalty", 1.0),
        seed=wire.seed if wire.HasField("seed") else drawn_seed,
    )
    violations.check_range(result.temperature, 0, 2, "sampling.temperature")
    violations.check_range(result.top_p, 0, 1, "sampling.top_p", exclude_low=True)
    violations.check_range(result.min_p, 0, 1, "sampling.min_p")
    violations.check_range(result.frequency_penalty, -2, 2, "sampling.frequency_penalty")
    violations.check_range(result.presence_penalty, -2, 2, "sampling.presence_penalty")
    violations.check_range(result.repetition_penalty, _MIN_REPETITION_PENALTY, 2, "sampling.repetition_penalty")
    return result


def constraint(wire: request_pb2.Constraint, violations: Violations) -> Constraint | None:
    """Translates the constraint. Only the engine can find out whether it is valid."""
    match wire.WhichOneof("form"):
        case "json_schema":
            return JsonSchema(wire.json_schema)
        case "regex":
            return Regex(wire.regex)
        case "grammar":
            return Grammar(wire.grammar)
        case "choices":
            choices = tuple(wire.choices.choices)
            violations.check(
                1 <= len(choices) <= MAX_CHOICES and all(choices),
                "constraint.choices",
                f"must be 1 to {MAX_CHOICES} texts, none empty",
            )
            return Choices(choices)
        case _:
            violations.check(
                holds=False, field="constraint", description="must have json_schema, regex, grammar or choices"
            )
            return None
