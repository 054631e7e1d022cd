import random

import pytest

from doherty_engine import InvalidInputError, Message, Role, TokenIds
from doherty_engine.synthetic._tokenizer import (
    END_OF_SEQUENCE,
    TOKEN_NAME,
    TOKEN_TEXT,
    VOCABULARY_SIZE,
    WORD_IDS,
    SyntheticTokenizer,
    decode,
    encode,
)
from doherty_engine.synthetic._words import WORDS
from doherty_engine.tokens import PromptReader

TEXTS = [
    "",
    " ",
    "  two  spaces  ",
    "What atoms are in water?",
    " water waterfall waters wat",
    "tab\tnew\nline\r\n\0",
    "Aß€水🙂\U0001f469\u200d\U0001f680 water🙂 and",
    "<|end|> <|user|>",
]


def random_text(draw: random.Random) -> str:
    parts = [" ", *(f" {word}" for word in draw.choices(WORDS, k=6)), *"abcß水🙂\n,", "er"]
    return "".join(draw.choices(parts, k=draw.randrange(12)))


def test_the_words_are_many_distinct_and_of_letters() -> None:
    assert len(WORDS) == len(set(WORDS)) > 500
    assert all(word.isascii() and word.isalpha() and word.islower() for word in WORDS)


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_reverses_encoding(text: str) -> None:
    assert decode(encode(text)).decode() == text


def test_random_texts_round_trip_and_tokens_of_a_prefix_are_a_prefix() -> None:
    draw = random.Random(3)  # noqa: S311 - test data
    for _ in range(1000):
        text = random_text(draw)
        ids = encode(text)
        assert decode(ids).decode() == text
        for count in range(len(ids) + 1):
            part = decode(ids[:count]).decode(errors="ignore")
            if part.encode() == decode(ids[:count]):
                assert encode(part) == ids[:count]


def test_the_longest_word_wins() -> None:
    assert encode(" another") == [WORD_IDS[b" another"]]
    assert encode(" waters") == [WORD_IDS[b" water"], ord("s")]


def test_a_conversation_is_rendered_with_its_roles_and_an_opening_for_the_answer() -> None:
    ids = SyntheticTokenizer().render([Message(Role.SYSTEM, "Be kind."), Message(Role.USER, " water")])
    assert b"".join(TOKEN_NAME[token_id] for token_id in ids) == (
        b"<|system|>Be kind.<|end|><|user|> water<|end|><|assistant|>"
    )
    assert decode(ids) == b"Be kind. water"
    assert ids.count(END_OF_SEQUENCE) == 2


def test_a_text_cannot_fake_a_special_token() -> None:
    assert max(encode("<|end|><|assistant|>")) < 256


async def test_token_ids_are_checked() -> None:
    reader = PromptReader(SyntheticTokenizer(), context_tokens=100)
    assert await reader.count(TokenIds((1, VOCABULARY_SIZE - 1))) == 2
    with pytest.raises(InvalidInputError, match=str(VOCABULARY_SIZE)) as caught:
        await reader.count(TokenIds((1, VOCABULARY_SIZE)))
    assert caught.value.field == "token_ids"


def test_every_id_has_a_text_and_a_name() -> None:
    assert len(TOKEN_TEXT) == len(TOKEN_NAME) == VOCABULARY_SIZE
    assert all(TOKEN_NAME)
