"""Writes folders of Hugging Face models without weights, but with real tokenizers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from doherty_engine import Message, Role

BEGIN, END, HEADER, HEADER_END, TURN_END = LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ message.content | trim ~ '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
SENTENCE_PIECES = (
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("▁a", "ab", "▁ab", "<s", "▁", "a", "b", "<", "s", ">"),
)
"""A vocabulary: control tokens, bytes, merged tokens in the order of the merges, and letters."""
_CORPUS = (
    "Name three colors. Why is the sky blue? What is the capital of France, and how many people live there?",
    "The sky is blue because the air scatters the blue light of the sun more than the red one.",
    "Hello. How are you today? I am fine, and the answer is that the end of the day is near.",
    '{"ok": true, "name": "value", "colors": ["red", "green", "blue"]}',
)


@dataclass(frozen=True)
class Folder:
    """A model's folder, and its tokenizer as loaded by the library that wrote it."""

    path: Path
    tokenizer: Tokenizer

    def id_of(self, token: str) -> int:
        token_id = self.tokenizer.token_to_id(token)
        assert token_id is not None
        return token_id

    def texts(self, text: str) -> list[int]:
        """Returns the ids of a text, without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def read_folder(path: Path) -> Folder:
    """Reads a folder that was written before."""
    return Folder(path, Tokenizer.from_file(str(path / "tokenizer.json")))


def write_folder(path: Path, tokenizer: Tokenizer, **files: dict[str, Any]) -> Folder:
    """Writes tokenizer.json and further JSON files; the parameter names are the file names without ".json"."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return Folder(path, tokenizer)


def write_llama3(path: Path, **generation: Any) -> Folder:
    """Writes a byte-level tokenizer of some hundred tokens with Llama 3's special tokens, template and end tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(LLAMA3_SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    ends = [tokenizer.token_to_id(END), tokenizer.token_to_id(TURN_END)]
    size = tokenizer.get_vocab_size()
    return write_folder(
        path,
        tokenizer,
        config={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": size,
            "max_position_embeddings": 8192,
        },
        generation_config={"eos_token_id": ends, "temperature": 0.6, "top_p": 0.9, **generation},
        tokenizer_config={"bos_token": BEGIN, "eos_token": END, "chat_template": LLAMA3_TEMPLATE},
    )


def write_sentence_piece(path: Path, **config: str) -> Folder:
    """Writes a SentencePiece tokenizer with byte fallback like Llama 2's: it puts a space before every text."""
    vocabulary = {piece: index for index, piece in enumerate(SENTENCE_PIECES)}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("<", "s"), ("<s", ">")]
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)  # noqa: S106 - no password
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return write_folder(path, tokenizer, tokenizer_config={"bos_token": "<s>", "eos_token": "</s>", **config})


def write_lora(path: Path, rank: int = 8) -> Path:
    """Writes the configuration of a LoRA adapter, without its weights."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    return path


def user(content: str) -> Message:
    """Returns a message of the user."""
    return Message(Role.USER, content)
