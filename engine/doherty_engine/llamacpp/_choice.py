"""Chooses one model from the GGUF files of a folder or of a Hugging Face repository."""

import re
from collections.abc import Iterable

from doherty_engine._errors import EngineSetupError
from doherty_engine.llamacpp._parts import part_names

_PREFERRED_QUANT = "Q4_K_M"
_AUXILIARY = re.compile(r"(?<![a-z0-9])(mmproj|imatrix)(?![a-z0-9])", re.IGNORECASE)
"""Matches the names of files that are not language models: image projectors and quantization statistics."""


def choose_file(names: Iterable[str], quant: str, *, place: str, root: str) -> str:
    """Returns the name of the chosen file; for a model that is split into parts, the first part.

    Args:
        names: The names of all files, as "folder/file".
        quant: The quantization as it appears in file names. If it is empty, the only model is chosen, or Q4_K_M if
            there are several.
        place: Where the files are; the subject of sentences in error messages.
        root: The prefix that an operator writes before a file's name.

    Raises:
        EngineSetupError: No file matches, or several do.
    """
    files = [name for name in names if name.lower().endswith(".gguf") and not _AUXILIARY.search(name)]
    models = sorted({part_names(name)[0] for name in files})
    if not models:
        raise EngineSetupError(f"{place} has no GGUF file with a language model; choose another one.")
    matching = models if len(models) == 1 and not quant else _with_quant(models, quant or _PREFERRED_QUANT)
    if len(matching) == 1:
        return matching[0]
    problem = f"no GGUF file {quant}" if quant and not matching else "several GGUF files"
    example = (matching or models)[0]
    raise EngineSetupError(f"{place} has {problem}; choose one, for example {root}/{example}.")


def _with_quant(models: list[str], quant: str) -> list[str]:
    """The models with `quant` as a whole word in their names (Q4_0 is not IQ4_0); if there is none, as a substring."""
    word = re.compile(rf"(?<![a-z0-9]){re.escape(quant)}(?![a-z0-9_])", re.IGNORECASE)
    exact = [name for name in models if word.search(name)]
    return exact or [name for name in models if quant.lower() in name.lower()]
