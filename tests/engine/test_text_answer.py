from doherty_engine.text import AnswerText, Piece


def feed_bytes(answer: AnswerText, text: str) -> list[Piece]:
    """Feeds bytes; every byte is a token whose id is its value."""
    return [piece for value in text.encode() for piece in answer.feed(value, bytes([value]))]


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def test_a_stop_text_is_found_in_characters_of_several_tokens() -> None:
    answer = AnswerText(["🙂🚀"])
    pieces = feed_bytes(answer, "ok 🙂")
    assert [piece.text for piece in pieces] == ["o", "k", " "]
    pieces = feed_bytes(answer, "🚀")
    assert answer.matched == "🙂🚀"
    assert pieces == [Piece("", 4, ids_of("🙂")), Piece("", 4, ids_of("🚀"))]


def test_the_end_delivers_the_text_that_was_held_back() -> None:
    answer = AnswerText(["stop"])
    assert feed_bytes(answer, "st") == []
    assert answer.feed(0xC3, b"\xc3") == []
    assert answer.end() == [Piece("s", 1, ids_of("s")), Piece("t", 1, ids_of("t")), Piece("", 1, (0xC3,))]


def test_a_prefix_is_taken_into_account_and_not_delivered_again() -> None:
    answer = AnswerText(["one two"])
    for value in b"one t":
        answer.prime(value, bytes([value]))
    assert feed_bytes(answer, "w") == []
    assert feed_bytes(answer, "o") == [Piece("", 1, ids_of("w")), Piece("", 1, ids_of("o"))]
    assert answer.matched == "one two"


def test_a_prefix_that_ends_within_a_code_point_is_recognized() -> None:
    answer = AnswerText()
    for value in "🙂".encode()[:3]:
        answer.prime(value, bytes([value]))
    assert answer.detokenizer.rest


def test_a_stop_text_before_the_minimum_length_is_delivered() -> None:
    answer = AnswerText(["b"])
    assert answer.feed(1, b"ab", may_end=False) == [Piece("ab", 1, (1,))]
    assert answer.feed(2, b"cb") == [Piece("c", 1, (2,))]
    assert answer.matched == "b"
