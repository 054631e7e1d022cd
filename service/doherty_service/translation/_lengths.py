"""Checks the lengths of a request's parts before any of them is read."""

from doherty.v1 import generation_service_pb2, request_pb2
from doherty_engine import ModelInfo
from doherty_service.translation._violations import Violations

MAX_STOP_TOKENS = 64
MAX_CHOICES = 256
_MAX_MESSAGES = 4096
_MAX_CONSTRAINT_CHARACTERS = 32_768

WireInput = request_pb2.GenerateRequest | generation_service_pb2.CountTokensRequest
"""The two messages that contain a prompt, in the same fields."""


def check_lengths(wire: WireInput, model: ModelInfo) -> None:
    """Checks that no part of a request is longer than the context or longer than the contract allows.

    Requests of at most `SMALL_BYTES` need no check.

    Raises:
        InvalidRequestError: Some parts are too long. The error names all of them.
    """
    violations = Violations()
    _check_conversation(wire, model, violations)
    _check_text(wire.prompt, "prompt", model, violations)
    _check_text(wire.raw_text, "raw_text", model, violations)
    if isinstance(wire, request_pb2.GenerateRequest):
        _check_ids(len(wire.token_ids), "token_ids", model, violations)
        _check_ids(len(wire.continue_from.token_ids), "continue_from.token_ids", model, violations)
        _check_text(wire.continue_from.text, "continue_from.text", model, violations)
        stop_tokens = len(wire.stopping.stop_token_ids)
        violations.check(
            stop_tokens <= MAX_STOP_TOKENS, "stopping.stop_token_ids", f"may have at most {MAX_STOP_TOKENS} items"
        )
        _check_constraint(wire.constraint, violations)
    violations.raise_if_any()


def _check_conversation(wire: WireInput, model: ModelInfo, violations: Violations) -> None:
    violations.check(len(wire.messages) <= _MAX_MESSAGES, "messages", f"may have at most {_MAX_MESSAGES} items")
    violations.raise_if_any()
    _check_characters(sum(len(message.content) for message in wire.messages), "messages", model, violations)


def _check_text(text: str, field: str, model: ModelInfo, violations: Violations) -> None:
    _check_characters(len(text), field, model, violations)


def _check_characters(count: int, field: str, model: ModelInfo, violations: Violations) -> None:
    maximum = model.context_tokens * model.longest_token_bytes
    violations.check(count <= maximum, field, f"has {count} characters, more than the context can ever hold")


def _check_ids(count: int, field: str, model: ModelInfo, violations: Violations) -> None:
    maximum = model.context_tokens - 1
    violations.check(count <= maximum, field, f"has {count} tokens, but the context has room for at most {maximum}")


def _check_constraint(wire: request_pb2.Constraint, violations: Violations) -> None:
    form = wire.WhichOneof("form")
    if form is None:
        return
    if form == "choices":
        choices = wire.choices.choices
        violations.check(len(choices) <= MAX_CHOICES, "constraint.choices", f"may have at most {MAX_CHOICES} items")
        violations.raise_if_any()
        count = sum(map(len, choices))
    else:
        count = len(getattr(wire, form))
    maximum = _MAX_CONSTRAINT_CHARACTERS
    violations.check(count <= maximum, f"constraint.{form}", f"has {count} characters; the maximum is {maximum}")
