"""The parts of a model that is split over several GGUF files."""

import re
from pathlib import Path

from doherty_engine._errors import EngineSetupError
from doherty_engine.llamacpp._gguf import Gguf, read_gguf

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""As llama.cpp names and finds them (`llama_split_path`), counted from 1."""


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts of the model of which this is one file; the name alone where it is not split."""
    found = _NAME.fullmatch(name)
    if found is None or not int(found["count"]):
        return (name,)
    return tuple(f"{found['stem']}-{part:05d}-of-{found['count']}.gguf" for part in range(1, int(found["count"]) + 1))


def read_model(path: Path) -> Gguf:
    """Reads the metadata of a model, and makes sure that all of its parts are there and whole.

    Raises:
        EngineSetupError: a file is missing, cannot be read or is not whole; says which.
    """
    gguf = read_gguf(path)
    _check_kind(path, gguf)
    count = gguf.integer("split.count") or 1
    if count == 1:
        return gguf
    names = part_names(path.name)
    if len(names) != count:
        raise EngineSetupError(
            f"{path} is a part of a model in {count} files; name them as they were, "
            f"like {path.stem}-00001-of-{count:05d}.gguf."
        )
    if path.name != names[0]:
        raise EngineSetupError(f"{path} is not the first part of the model; name {path.with_name(names[0])}.")
    for part in (path.with_name(name) for name in names[1:]):
        if not part.is_file():
            raise EngineSetupError(
                f"The model {path} is in {count} files, and {part.name} is missing; put it beside it."
            )
        read_gguf(part)
    return gguf


def _check_kind(path: Path, gguf: Gguf) -> None:
    """Refuses what is no language model: a GGUF file may hold an adapter, or what sees pictures."""
    kind = gguf.values.get("general.type", "model")
    if kind != "model":
        raise EngineSetupError(f"{path} holds no language model ({kind}); name the model that it belongs to.")
    if not gguf.architecture and not gguf.integer("split.no"):
        raise EngineSetupError(f"{path} does not say the architecture of its model; get it anew.")
