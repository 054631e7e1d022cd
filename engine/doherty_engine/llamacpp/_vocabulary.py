"""The model's vocabulary: the bytes of each token in an answer, and the tokens that end an answer.

If a character consists of several tokens, llama.cpp's stream has the id of the last one only. `Vocabulary.recover`
finds the other ids if the bytes allow only one solution.
"""

from collections.abc import Sequence

from doherty_engine._errors import EngineSetupError
from doherty_engine.llamacpp._gguf import Gguf
from doherty_engine.text import ControlTokens, looks_like_control, spell_byte_level, spell_sentence_piece

_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6
"""The GGUF token types that produce text; tokens of other types produce none."""
_UNKNOWN, _CONTROL = 2, 3
"""The GGUF token types that llama.cpp recognizes in a text only if it parses control tokens."""
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_END_NAMES = frozenset(
    {
        "</s>",
        "<EOT>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<eos>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|im_end|>",
        "<|return|>",
    }
)
"""Tokens that llama.cpp treats as the end of an answer because of their name, whatever the metadata says."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, gguf: Gguf) -> None:
        """Raises EngineSetupError if this engine does not support the kind of tokenizer."""
        kind = gguf.values.get("tokenizer.ggml.model")
        if kind not in {"gpt2", "llama"} or len(gguf.tokens) != len(gguf.token_types):
            raise EngineSetupError(
                f'The model has a tokenizer of the kind {kind!r}, and this engine supports "gpt2" and "llama"; '
                "choose another model."
            )
        spell = _spell_bpe if kind == "gpt2" else _spell_spm
        self.pieces = tuple(map(spell, gguf.tokens, gguf.token_types))
        """The bytes of each token in an answer, by id; empty for control tokens."""
        named = {gguf.integer(f"tokenizer.ggml.{key}") for key in _END_KEYS}
        self.bos_id = gguf.integer("tokenizer.ggml.bos_token_id")
        """The token that llama.cpp may put before a prompt, if the model has one."""
        spelled = {token_id for token_id, token in enumerate(gguf.tokens) if token in _END_NAMES}
        self.end_ids = frozenset(spelled | {token_id for token_id in named if token_id is not None})
        """The tokens with which the model ends its answer."""
        self.controls = ControlTokens(
            {
                token: token_id
                for token_id, (token, token_type) in enumerate(zip(gguf.tokens, gguf.token_types, strict=True))
                if token_type in (_UNKNOWN, _CONTROL) or (token_type == _USER_DEFINED and looks_like_control(token))
            }
        )
        """The tokens that separate the messages of a conversation."""
        self._ids_by_piece: dict[bytes, list[int]] = {}
        for token_id, piece in enumerate(self.pieces):
            self._ids_by_piece.setdefault(piece, []).append(token_id)

    def __len__(self) -> int:
        return len(self.pieces)

    def decode(self, token_ids: Sequence[int]) -> bytes:
        """The bytes of the tokens in an answer."""
        return b"".join(self.pieces[token_id] for token_id in token_ids)

    def ends_inside_character(self, token_id: int) -> bool:
        """Whether the token may end in the middle of a code point; then llama.cpp's stream may not have its id."""
        piece = self.pieces[token_id]
        return bool(piece) and not _is_text(piece)

    def recover(self, text: str, count: int, last_id: int) -> tuple[int, ...] | None:
        """Finds the ids of the `count` tokens that form `text`, of which the last is `last_id`; None if ambiguous."""
        if count == 1:
            return (last_id,)
        data = text.encode()
        last = self.pieces[last_id]
        if not last or not data.endswith(last) or _REPLACEMENT in text:  # U+FFFD replaces unknown bytes
            return None
        solutions = self._split(data[: len(data) - len(last)], count - 1)
        return (*solutions[0], last_id) if len(solutions) == 1 else None

    def _split(self, data: bytes, count: int) -> list[tuple[int, ...]]:
        """Splits the bytes into `count` tokens; stops at two solutions, because then the split is ambiguous."""
        solutions: list[tuple[int, ...]] = []
        if count == 1:
            solutions += [(token_id,) for token_id in self._ids_by_piece.get(data, ())]
            return solutions[:2]
        for end in range(1, len(data) - count + 2):
            for token_id in self._ids_by_piece.get(data[:end], ()):
                solutions += [(token_id, *rest) for rest in self._split(data[end:], count - 1)]
                if len(solutions) > 1:
                    return solutions[:2]
        return solutions


def _is_text(data: bytes) -> bool:
    """Whether the bytes end with a complete code point; they may start in the middle of one."""
    tail = data[-4:]
    return any(_decodes(tail[start:]) for start in range(len(tail)))


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _spell_bpe(token: str, kind: int) -> bytes:
    if kind == _USER_DEFINED:
        return token.encode()
    return spell_byte_level(token) if kind == _NORMAL else b""


def _spell_spm(token: str, kind: int) -> bytes:
    if kind == _BYTE:
        return bytes([int(token[3:5], 16)])  # "<0x0A>"
    if kind == _USER_DEFINED:
        return token.encode()
    return spell_sentence_piece(token) if kind == _NORMAL else b""
