"""Finds the folder of a Hugging Face model: a local one, or a repository on the hub, of which weights are left out."""

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
    """A model's files on this machine, at least those that describe it."""

    path: Path
    model: str
    """What it was asked for by: a path or an id on the hub."""
    revision: str
    """The commit on the hub; empty for a folder."""

    @property
    def name(self) -> str:
        """The id under which callers know it: the hub's, or the folder's name."""
        return self.model if self.revision else self.path.name

    def read_json(self, name: str) -> Mapping[str, Any]:
        """One of its files; empty if it is not there.

        Raises:
            EngineSetupError: it is no JSON object.
        """
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise EngineSetupError(f"{self.path / name} cannot be read ({error}); get the model anew.") from error
        if not isinstance(value, dict):
            raise EngineSetupError(f"{self.path / name} is no JSON object; get the model anew.")
        return value


def find_model_folder(model: str, revision: str = "", *, extra: str) -> ModelFolder:
    """Finds a model's folder, and downloads its small files if it is on the hub; blocks.

    Args:
        model: the path of a folder, or an id on the hub, as "org/name".
        revision: the commit, branch or tag on the hub; empty is its default branch.
        extra: the extra of this distribution to name where a package is missing.

    Raises:
        EngineSetupError: there is no such model, or it cannot be had.
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
    except Exception as error:  # the hub's client lets the errors of its HTTP library through, which changed its name
        raise EngineSetupError(
            f"The model {model} is no folder here and cannot be had from the hub ({first_line(error)}); check the name "
            "and the network."
        ) from error
    return ModelFolder(path, model, path.name)  # the cache keeps it under snapshots/<commit>
