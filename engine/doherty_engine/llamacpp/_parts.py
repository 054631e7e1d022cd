"""Handles models that are split into several GGUF files."""

import re
from pathlib import Path

from doherty_engine._errors import EngineSetupError
from doherty_engine.llamacpp._gguf import Gguf, read_gguf

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""The names that llama.cpp gives to parts and looks for (`llama_split_path`); the first part has number 1."""


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts of the model that the file `name` belongs to; only `name` if the model is not split."""
    match = _NAME.fullmatch(name)
    if match is None or not int(match["count"]):
        return (name,)
    return tuple(f"{match['stem']}-{part:05d}-of-{match['count']}.gguf" for part in range(1, int(match["count"]) + 1))


def read_model(path: Path) -> Gguf:
    """Reads the metadata of a model, and checks that all of its parts are present and complete.

    Raises:
        EngineSetupError: A file is missing, unreadable or incomplete, or is not a language model.
    """
    gguf = read_gguf(path)
    _check_kind(path, gguf)
    count = gguf.integer("split.count") or 1
    if count == 1:
        return gguf
    names = part_names(path.name)
    if len(names) != count:
        raise EngineSetupError(
            f"{path} is one part of a model in {count} files; give the files their original names, "
            f"like {path.stem}-00001-of-{count:05d}.gguf."
        )
    if path.name != names[0]:
        raise EngineSetupError(f"{path} is not the first part of the model; use {path.with_name(names[0])}.")
    for part in (path.with_name(name) for name in names[1:]):
        if not part.is_file():
            raise EngineSetupError(
                f"The model {path} is split into {count} files, and {part.name} is missing; put it in the same folder."
            )
        read_gguf(part)
    return gguf


def _check_kind(path: Path, gguf: Gguf) -> None:
    """Refuses files that are not language models; a GGUF file may contain an adapter or an image projector."""
    kind = gguf.values.get("general.type", "model")
    if kind != "model":
        raise EngineSetupError(f"{path} is not a language model ({kind}); use the model that it belongs to.")
    if not gguf.architecture and not gguf.integer("split.no"):
        raise EngineSetupError(f"{path} does not say the architecture of its model; download it again.")
