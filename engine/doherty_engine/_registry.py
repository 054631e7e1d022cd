"""The engines by name, each imported only when it is asked for."""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module

from doherty_engine._engine import Engine
from doherty_engine._errors import EngineSetupError

_MODULES = {
    "llamacpp": "doherty_engine.llamacpp",
    "synthetic": "doherty_engine.synthetic",
    "vllm": "doherty_engine.vllm",
}

DEFAULT_ENGINE = "llamacpp"
"""The engine that needs no GPU."""


def engine_names() -> list[str]:
    """The names that `create_engine` takes, sorted."""
    return sorted(_MODULES)


def engine_options(name: str) -> dict[str, str]:
    """The options of an engine, and what each is for."""
    module = import_module(_MODULES[name])
    return {field.name: field.metadata["description"] for field in fields(module.Options)}


def create_engine(name: str, options: Mapping[str, str] | None = None) -> Engine:
    """Makes an engine, not yet started, from options as text: each is parsed by its field in the engine's Options.

    Raises:
        EngineSetupError: there is no such engine or option, or a value cannot be read.
    """
    if name not in _MODULES:
        raise EngineSetupError(f"There is no engine {name!r}; choose one of {', '.join(engine_names())}.")
    module = import_module(_MODULES[name])
    parsers = {field.name: field.metadata["parse"] for field in fields(module.Options)}
    values: dict[str, object] = {}
    for option, text in (options or {}).items():
        if option not in parsers:
            raise EngineSetupError(f"The engine {name} has no option {option!r}; it has {', '.join(sorted(parsers))}.")
        try:
            values[option] = parsers[option](text)
        except ValueError as error:
            raise EngineSetupError(f"The engine option {option}={text!r} cannot be read: {error}.") from error
    engine: Engine = module.create(module.Options(**values))
    return engine
