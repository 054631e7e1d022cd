"""What a request may not ask for together with a constraint."""

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import Choices, Constraint, EngineRequest, Grammar, JsonSchema, Regex

_FIELDS: dict[type[Constraint], str] = {
    Choices: "constraint.choices",
    Grammar: "constraint.grammar",
    JsonSchema: "constraint.json_schema",
    Regex: "constraint.regex",
}


def constraint_field(constraint: Constraint) -> str:
    """The path of a constraint's field in GenerateRequest."""
    return _FIELDS[type(constraint)]


def check_combination(request: EngineRequest) -> None:
    """Refuses what no engine that compiles constraints can combine with one.

    Raises:
        UnsupportedError: The request asks for it.
    """
    if request.constraint is None:
        return
    if request.prefix is not None:
        raise UnsupportedError("continue_from", "this engine cannot continue an answer that has a constraint")
    if request.stopping.ignore_eos:
        raise UnsupportedError("stopping.ignore_eos", "with a constraint the answer must be able to end")
