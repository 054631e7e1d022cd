"""Expands paths in options."""

from pathlib import Path

from doherty_engine._errors import EngineSetupError


def expand_user(path: str) -> Path:
    """Replaces a "~" at the beginning of a path by the home folder.

    Raises:
        EngineSetupError: There is no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EngineSetupError(
            f"The path {path} needs a home folder and there is none; set HOME, or use an absolute path."
        ) from error
