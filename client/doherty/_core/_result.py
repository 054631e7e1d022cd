"""The base class of all results."""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any


class Result:
    """The base of the frozen dataclasses that calls return."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain data that can be encoded as JSON.

        As in protobuf's JSON mapping, bytes are encoded as base64, and numbers that JSON cannot represent as "NaN",
        "Infinity" and "-Infinity". Objects that pydantic created are converted by pydantic.
        """
        fields: dict[str, Any] = vars(type(self))["__dataclass_fields__"]
        return {name: _plain(getattr(self, name)) for name in fields}

    def to_json(self, *, indent: int | None = None) -> str:
        """Returns `to_dict` as JSON text: on one line, or indented by `indent` spaces."""
        import json  # noqa: PLC0415 - most programs write no JSON

        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def _repr_markdown_(self) -> str:
        """A table, for notebooks."""
        rows = (f"| {name} | {_cell(value)} |" for name, value in _leaves(self.to_dict()))
        return "\n".join(("| | |", "|---|---|", *rows))


def _plain(value: Any) -> Any:  # noqa: PLR0911 - a table
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value).replace("nan", "NaN").replace("inf", "Infinity")
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, bytes):
        import base64  # noqa: PLC0415 - few results have bytes

        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    from pydantic_core import to_jsonable_python  # noqa: PLC0415 - pydantic created the object, so it is imported already

    return _plain(to_jsonable_python(value))


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Yields the fields, nested ones with their paths."""
    leaves: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            leaves += _leaves(value, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", value))
    return leaves


def _cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
