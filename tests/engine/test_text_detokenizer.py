import codecs

import pytest

from doherty_engine import TokenLogprob
from doherty_engine.text import Piece, Utf8Detokenizer

TEXT = "Aß€水🙂 é\U0001f469\u200d\U0001f680!"


def pieces_of(data: bytes, size: int) -> list[Piece]:
    detokenizer = Utf8Detokenizer()
    tokens = [data[start : start + size] for start in range(0, len(data), size)]
    fed = [detokenizer.feed(index, token) for index, token in enumerate(tokens)]
    return [piece for piece in (*fed, detokenizer.flush()) if piece is not None]


@pytest.mark.parametrize("size", range(1, 9))
def test_every_split_leads_to_the_same_text_with_the_ids_of_each_piece(size: int) -> None:
    data = TEXT.encode()
    pieces = pieces_of(data, size)
    assert "".join(piece.text for piece in pieces) == TEXT
    for piece in pieces:
        assert piece.token_ids is not None
        assert piece.token_count == len(piece.token_ids)
        assert piece.text.encode() == b"".join(data[index * size : (index + 1) * size] for index in piece.token_ids)


@pytest.mark.parametrize("size", range(1, 6))
@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"a\xc3", b"\xf0\x9f\x99", b"\xf0\x9fA", b"\xe2\x82(", b"\x80\x80ok", b"\xed\xa0\x80", b"\xc0\xaf"],
)
def test_invalid_utf8_is_replaced_as_in_python(data: bytes, size: int) -> None:
    # Without an incomplete code point at the end.
    whole = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    assert "".join(piece.text for piece in pieces_of(data, size)) == whole


def test_a_token_that_ends_within_a_code_point_is_held_back_completely() -> None:
    detokenizer = Utf8Detokenizer()
    assert detokenizer.feed(1, b"so \xf0") is None
    assert detokenizer.rest
    assert detokenizer.feed(2, b"\x9f\x99") is None
    assert detokenizer.feed(3, b"\x82!") == Piece("so 🙂!", 3, (1, 2, 3))
    assert not detokenizer.rest
    assert detokenizer.flush() is None


def test_a_token_without_text_is_a_separate_piece() -> None:
    assert Utf8Detokenizer().feed(9, b"") == Piece("", 1, (9,))


def test_flush_returns_the_incomplete_rest_once() -> None:
    detokenizer = Utf8Detokenizer()
    detokenizer.feed(1, b"\xf0\x9f")
    assert detokenizer.flush() == Piece("", 1, (1,))
    assert detokenizer.flush() is None
    assert detokenizer.feed(2, b"A") == Piece("A", 1, (2,))


def test_log_probabilities_stay_with_their_tokens() -> None:
    detokenizer = Utf8Detokenizer()
    first, second, third = (TokenLogprob(index, b"?", -float(index)) for index in range(3))
    assert detokenizer.feed(0, b"a", first) == Piece("a", 1, (0,), (first,))
    assert detokenizer.feed(1, b"\xc3", second) is None
    assert detokenizer.feed(2, b"\x9f", third) == Piece("ß", 2, (1, 2), (second, third))
