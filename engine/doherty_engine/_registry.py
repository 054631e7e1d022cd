"""The engines by name. Each is imported only when it is used."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from doherty_engine._engine import Engine
from doherty_engine._errors import EngineSetupError

_MODULES = {
    "llamacpp": "doherty_engine.llamacpp",
    "synthetic": "doherty_engine.synthetic",
    "trtllm": "doherty_engine.trtllm",
    "vllm": "doherty_engine.vllm",
}

_PACKAGES = {"llamacpp": "xllamacpp", "trtllm": "tensorrt_llm", "vllm": "vllm"}
"""The packages that engines run on; the others need none."""

DEFAULT_ENGINE = "llamacpp"
"""The engine that needs no GPU."""


def engine_names() -> list[str]:
    """The names for `create_engine`, sorted."""
    return sorted(_MODULES)


def is_engine_installed(name: str) -> bool:
    """Whether the package that an engine runs on is installed. It is not imported for that."""
    return name not in _PACKAGES or find_spec(_PACKAGES[name]) is not None


def engine_options(name: str) -> dict[str, str]:
    """The options of an engine with their descriptions."""
    module = import_module(_MODULES[name])
    return {field.name: field.metadata["description"] for field in fields(module.Options)}


def create_engine(name: str, options: Mapping[str, str] | None = None) -> Engine:
    """Makes an engine that is not yet started. Each option is parsed by its field in the engine's Options.

    Raises:
        EngineSetupError: There is no such engine or option, or a value cannot be parsed.
    """
    module = _module(name)
    engine: Engine = module.create(read_engine_options(name, options or {}))
    return engine


def engine_profiles(name: str) -> dict[str, dict[str, object]]:
    """The profiles of an engine with their settings; empty if it has no profiles.

    Raises:
        EngineSetupError: There is no such engine.
    """
    profiles: Callable[[], dict[str, dict[str, object]]] | None = getattr(_module(name), "profiles", None)
    return {} if profiles is None else profiles()


def prepare_engine(name: str, options: Mapping[str, str], report: Callable[[str], None]) -> str:
    """Does the preparation of the engine's first start in advance. Blocks, and passes its progress to `report`.

    Returns a sentence that describes the result.

    Raises:
        EngineSetupError: It failed, or the engine needs no preparation.
    """
    module = _module(name)
    prepare: Callable[[object, Callable[[str], None]], str] | None = getattr(module, "prepare", None)
    if prepare is None:
        raise EngineSetupError(f"The engine {name} needs no preparation; start it with `doherty serve`.")
    return prepare(read_engine_options(name, options), report)


def read_engine_options(name: str, options: Mapping[str, str]) -> object:
    """Parses the options of an engine.

    Raises:
        EngineSetupError: There is no such engine or option, or a value cannot be parsed.
    """
    module = _module(name)
    parsers = {field.name: field.metadata["parse"] for field in fields(module.Options)}
    values: dict[str, object] = {}
    for option, text in options.items():
        if option not in parsers:
            raise EngineSetupError(f"The engine {name} has no option {option!r}; it has {', '.join(sorted(parsers))}.")
        try:
            values[option] = parsers[option](text)
        except ValueError as error:
            raise EngineSetupError(f"The engine option {option}={text!r} cannot be read: {error}.") from error
    return module.Options(**values)


def _module(name: str) -> ModuleType:
    if name not in _MODULES:
        raise EngineSetupError(f"There is no engine {name!r}; choose one of {', '.join(engine_names())}.")
    return import_module(_MODULES[name])
