"""Refuses request fields that cannot be combined with a constraint."""

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Choices, Constraint, EngineRequest, Grammar, JsonSchema, Regex

_FIELDS: dict[type[Constraint], str] = {
    Choices: "constraint.choices",
    Grammar: "constraint.grammar",
    JsonSchema: "constraint.json_schema",
    Regex: "constraint.regex",
}


def constraint_field(constraint: Constraint) -> str:
    """The path of the constraint's field in GenerateRequest."""
    return _FIELDS[type(constraint)]


def check_combination(request: EngineRequest) -> None:
    """Refuses requests that combine a constraint with something that no engine supports together with one.

    Raises:
        UnsupportedError: The request has such a combination.
    """
    if request.constraint is None:
        return
    if request.prefix is not None:
        raise UnsupportedError("continue_from", "this engine cannot continue an answer that has a constraint")
    if request.stopping.ignore_eos:
        raise UnsupportedError("stopping.ignore_eos", "an answer with a constraint must be able to end")
