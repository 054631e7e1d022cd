"""Finds the folder of a Hugging Face model: a local folder, or the small files of a repository on the hub."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._hub import find_copy, open_repository
from doherty_engine._paths import expand_user

_SMALL_FILES = ["*.json", "*.jinja", "*.model"]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's files on this machine; weights may be missing."""

    path: Path
    model: str
    """The path or hub id by which the operator named it."""
    revision: str
    """The commit on the hub; empty for a local folder."""

    @property
    def name(self) -> str:
        """The model id that is reported to callers: the hub id, or the name of the local folder."""
        return self.model if self.revision else self.path.name

    def read_json(self, name: str) -> Mapping[str, Any]:
        """Reads a JSON file; returns an empty mapping if it does not exist.

        Raises:
            EngineSetupError: It cannot be read, or is not a JSON object.
        """
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise EngineSetupError(f"{self.path / name} cannot be read ({error}); download the model again.") from error
        if not isinstance(value, dict):
            raise EngineSetupError(f"{self.path / name} is not a JSON object; download the model again.")
        return value


def find_model_folder(model: str, revision: str = "", *, extra: str) -> ModelFolder:
    """Finds a model's folder; downloads the small files of a model on the hub. This blocks.

    Args:
        model: The path of a folder, or a model on the hub as "org/name".
        revision: The commit, branch or tag on the hub. Empty means the default branch.
        extra: The extra of this distribution that error messages name if a package is missing.

    Raises:
        EngineSetupError: There is no such model, or it cannot be downloaded.
    """
    path = expand_user(model)
    if path.is_dir():
        return ModelFolder((find_copy(path, revision) or path).resolve(), model, "")
    if model.count("/") != 1 or path.exists() or model.startswith((".", "/", "~")):
        raise EngineSetupError(
            f'There is no model folder {model}; give the path of one, or a model on the hub as "org/name".'
        )
    try:
        path = open_repository(model, revision, extra=extra).fetch(only=_SMALL_FILES)
    except EngineSetupError:
        raise
    except Exception as error:  # huggingface_hub raises its HTTP library's errors, and has changed that library
        raise EngineSetupError(
            f"The model {model} is not a local folder and cannot be downloaded from the hub ({first_line(error)}); "
            "check the name and the network."
        ) from error
    return ModelFolder(path, model, path.name)  # the hub's cache names the folder after the commit
