"""Follows the references of a JSON Schema, and names the parts of the schema that they refer to."""

from dataclasses import dataclass

from doherty_engine.constraints._schema_values import Json, invalid, resolve

_MAX_TARGETS = 256


@dataclass(frozen=True, slots=True)
class Target:
    """A part of a schema to which a `$ref` refers."""

    name: str
    """Its name in `$defs` of the rewritten schema."""
    schema: Json
    path: str


class References:
    """The references of one schema."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._names: dict[int, str] = {}
        """For each target, by the identity of the object: its name."""
        self._waiting: list[Target] = []

    def resolve(self, reference: Json, path: str) -> Json:
        """Finds the part of the schema that a `$ref` refers to.

        Raises:
            InvalidInputError: There is no such part, or the references are circular or too many.
            UnsupportedError: It refers to another document, or uses an anchor.
        """
        target = end = resolve(self._root, reference, path)
        seen: set[int] = set()
        while isinstance(end, dict) and "$ref" in end:
            if id(end) in seen:
                raise invalid("$ref", path, "it is circular")
            if len(seen) == _MAX_TARGETS:
                raise invalid("$ref", path, f"it is a chain of more than {_MAX_TARGETS} references")
            seen.add(id(end))
            end = resolve(self._root, end["$ref"], path)
        return target

    def name(self, target: Json, reference: str) -> str:
        """Names a target. `next_target` returns each target that got a name once."""
        name = self._names.get(id(target))
        if name is None:
            if len(self._names) == _MAX_TARGETS:
                raise invalid("$ref", reference[:80], f"there are references to more than {_MAX_TARGETS} schemas")
            name = self._names[id(target)] = f"d{len(self._names)}"
            self._waiting.append(Target(name, target, reference[:80]))
        return name

    def next_target(self) -> Target | None:
        """Returns a target that is not written yet; None if there is none."""
        return self._waiting.pop() if self._waiting else None
