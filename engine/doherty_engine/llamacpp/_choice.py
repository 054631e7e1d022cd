"""Chooses a model among the GGUF files of a folder or of a repository on the hub."""

import re
from collections.abc import Iterable

from doherty_engine._errors import EngineSetupError
from doherty_engine.llamacpp._parts import part_names

_PREFERRED_QUANT = "Q4_K_M"
_BESIDE_A_MODEL = re.compile(r"(?<![a-z0-9])(mmproj|imatrix)(?![a-z0-9])", re.IGNORECASE)
"""In the names of files that belong to a model: what sees pictures, and statistics for quantizing."""


def choose_file(names: Iterable[str], quant: str, *, place: str, root: str) -> str:
    """The file that is meant, of a model in parts the first one.

    Args:
        names: those of all files, as "folder/file".
        quant: the quantization that is wanted, as files have it in their names; empty is any, if there is only one
            file, else Q4_K_M.
        place: where the files are, as the subject of a sentence.
        root: what an operator writes before a name.

    Raises:
        EngineSetupError: there is none, or it is not clear which one.
    """
    files = [name for name in names if name.lower().endswith(".gguf") and not _BESIDE_A_MODEL.search(name)]
    models = sorted({part_names(name)[0] for name in files})
    if not models:
        raise EngineSetupError(f"{place} has no GGUF file with a language model; name another one.")
    matching = models if len(models) == 1 and not quant else _with_quant(models, quant or _PREFERRED_QUANT)
    if len(matching) == 1:
        return matching[0]
    what = f"no GGUF file {quant}" if quant and not matching else "several GGUF files"
    example = (matching or models)[0]
    raise EngineSetupError(f"{place} has {what}; choose one, for instance {root}/{example}.")


def _with_quant(models: list[str], quant: str) -> list[str]:
    """Those that have it as a word in their names, or else its letters: Q4_0 is not IQ4_0."""
    word = re.compile(rf"(?<![a-z0-9]){re.escape(quant)}(?![a-z0-9_])", re.IGNORECASE)
    exactly = [name for name in models if word.search(name)]
    return exactly or [name for name in models if quant.lower() in name.lower()]
