"""Paths that a person wrote."""

from pathlib import Path

from doherty_engine._errors import EngineSetupError


def expand_user(path: str) -> Path:
    """The path with a "~" at its beginning replaced by the home folder.

    Raises:
        EngineSetupError: it begins so, and there is no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EngineSetupError(
            f"The path {path} needs a home folder and there is none; set HOME, or give the whole path."
        ) from error
