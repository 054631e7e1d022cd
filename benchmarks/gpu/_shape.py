"""A model folder with the shape of Llama 3 8B and no weights, for engines that generate random ones.

Speed does not depend on the weights' values. The tokenizer has the words "w0" to "w128255", so that a prompt has as
many tokens as words, and every id has a text.
"""

import json
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = 128_256
LAYERS = 32
HIDDEN = 4096
INTERMEDIATE = 14_336
HEADS, KV_HEADS, HEAD = 32, 8, 128

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": VOCABULARY - 256,
    "eos_token_id": VOCABULARY - 255,
    "head_dim": HEAD,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
}
TEMPLATE = "{% for message in messages %}w1 w2 {{ message.role }} w3 {{ message.content }} w4 {% endfor %}w1 w2 w5 w3"


def write_shape(folder: Path, **more: object) -> Path:
    """Writes the folder; `more` goes into its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "config.json").write_text(json.dumps(CONFIG | more))
    return folder


def prompt_ids(random: Random, length: int) -> list[int]:
    """Returns the token ids of a new prompt, so that no prefix cache helps."""
    return [random.randrange(VOCABULARY - 256) for _ in range(length)]


def prompt_text(ids: list[int]) -> str:
    """Returns the text that the tokenizer encodes as these tokens."""
    return " ".join(f"w{number}" for number in ids)


def as_text(prompt: list[int] | str) -> str:
    """Returns the model's input: for the text of a user, the output of the template."""
    return prompt_text(prompt) if isinstance(prompt, list) else f"w1 w2 user w3 {prompt} w4 w1 w2 w5 w3"


def as_ids(prompt: list[int] | str) -> list[int]:
    """Returns the token ids of `as_text`. All real words are the unknown token."""
    if isinstance(prompt, list):
        return prompt
    words = as_text(prompt).split()
    return [int(word[1:]) if word[0] == "w" and word[1:].isdecimal() else 0 for word in words]
