import random
from dataclasses import dataclass

import pytest

from doherty_engine.text import Piece, StopMatcher


@dataclass(frozen=True)
class Matched:
    text: str
    stop_text: str | None
    token_ids: tuple[int, ...]
    read: int
    """The number of pieces that were fed."""


def match(texts: list[str], stops: list[str], *, include: bool = False, free: int = 0, held: str = "") -> Matched:
    """Feeds pieces; the first `free` of them cannot end the answer."""
    matcher = StopMatcher(stops, include_stop_text=include)
    matcher.prime(held)
    released: list[Piece] = []
    read = 0
    for index, text in enumerate(texts):
        if matcher.matched is not None:
            break
        released += matcher.feed(Piece(text, 1, (index,)), may_end=index >= free)
        read += 1
    if matcher.matched is None:
        released += matcher.flush()
    ids = tuple(token_id for piece in released for token_id in piece.token_ids or ())
    return Matched("".join(piece.text for piece in released), matcher.matched, ids, read)


def expected(texts: list[str], stops: list[str], *, include: bool, free: int) -> Matched:
    """Computes the expected result by searching the whole answer after every character."""
    answer = "".join(texts)
    free_length = len("".join(texts[:free]))
    for end in range(free_length + 1, len(answer) + 1):
        ending = [stop for stop in stops if answer[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            read = next(count for count in range(len(texts) + 1) if len("".join(texts[:count])) >= end)
            text = answer[: end if include else end - len(stop)]
            return Matched(text, stop, tuple(range(read)), read)
    return Matched(answer, None, tuple(range(len(texts))), len(texts))


def test_without_stop_texts_no_piece_is_held_back() -> None:
    piece = Piece("text", 1, (1,))
    assert StopMatcher([]).feed(piece) == [piece]


def test_a_stop_text_is_found_across_pieces_and_cut_off() -> None:
    assert match(["The e", "nd", " of", " it"], ["end of"]) == Matched("The ", "end of", (0, 1, 2), 3)


def test_a_stop_text_can_be_included() -> None:
    assert match(["The e", "nd", " of it"], ["end of"], include=True) == Matched("The end of", "end of", (0, 1, 2), 3)


def test_the_possible_beginning_of_a_stop_text_is_held_back() -> None:
    matcher = StopMatcher(["stop"])
    first, second, third = Piece("a s", 1, (1,)), Piece("to", 1, (2,)), Piece("ne", 1, (3,))
    assert matcher.feed(first) == []
    assert matcher.feed(second) == []
    assert matcher.feed(third) == [first, second, third]


def test_a_piece_without_text_keeps_its_place() -> None:
    matcher = StopMatcher(["ab"])
    pieces = [Piece("a", 1, (1,)), Piece("", 1, (2,)), Piece("c", 1, (3,))]
    assert [matcher.feed(piece) for piece in pieces] == [[], [], pieces]


def test_the_first_complete_stop_text_wins_and_of_two_the_longer() -> None:
    assert match(["abcd"], ["bcd", "bc"]).stop_text == "bc"
    assert match(["abc"], ["c", "bc"]) == Matched("a", "bc", (0,), 1)


def test_a_stop_text_that_begins_in_the_prefix_removes_no_delivered_text() -> None:
    assert match(["d of", " it"], ["end of"], held="The en") == Matched("", "end of", (0,), 1)
    assert match(["d of", " it"], ["end of"], held="The en", include=True).text == "d of"


def test_a_prefix_may_be_complete() -> None:
    matcher = StopMatcher(["end"])
    matcher.prime("The end. And")
    assert matcher.matched == "end"


def test_a_stop_text_before_the_minimum_length_of_the_prefix_is_ignored() -> None:
    matcher = StopMatcher(["end"])
    matcher.prime("The end", may_end=False)
    matcher.prime(". An")
    assert matcher.matched is None
    assert matcher.feed(Piece("d so")) == [Piece("d so")]


def test_a_stop_text_that_overlaps_an_ignored_one_is_found() -> None:
    assert match(["aa", "a"], ["aa"], free=1) == Matched("a", "aa", (0, 1), 2)


@pytest.mark.parametrize("include", [False, True])
def test_thousands_of_answers_end_where_a_simple_search_expects_it(*, include: bool) -> None:
    draw = random.Random(7)  # noqa: S311 - test data
    for _ in range(5000):
        texts = ["".join(draw.choices("ab", k=draw.randrange(4))) for _ in range(draw.randrange(1, 9))]
        stops = ["".join(draw.choices("ab", k=draw.randrange(1, 6))) for _ in range(draw.randrange(1, 4))]
        free = draw.randrange(4)
        plain_search = expected(texts, stops, include=include, free=free)
        assert match(texts, stops, include=include, free=free) == plain_search, (texts, stops, free)


def test_no_text_is_held_back_longer_than_necessary() -> None:
    draw = random.Random(8)  # noqa: S311 - test data
    for _ in range(2000):
        stops = ["".join(draw.choices("ab", k=draw.randrange(2, 6))) for _ in range(2)]
        matcher = StopMatcher(stops)
        answer = released = ""
        while matcher.matched is None and len(answer) < 12:
            answer += (text := draw.choice("ab"))
            released += "".join(piece.text for piece in matcher.feed(Piece(text)))
            if matcher.matched is None:
                begun = [n for stop in stops for n in range(len(stop)) if answer.endswith(stop[:n])]
                assert released == answer[: len(answer) - max(begun)]


def test_the_cost_of_a_repetitive_stop_text_is_proportional_to_its_length() -> None:
    stop = "a" * 50_000 + "b"
    result = match(["a"] * 60_000 + ["b", "c"], [stop])
    assert result.stop_text == stop
    assert result.text == "a" * 10_000
