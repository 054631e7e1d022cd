"""How much of a prompt llama.cpp computes at a time beside running answers."""

from types import SimpleNamespace

import pytest

from doherty_engine.llamacpp import _pace
from doherty_engine.llamacpp._pace import PromptPace
from doherty_engine.llamacpp._prompt import Prompt
from doherty_engine.llamacpp._server import BATCH_TOKENS


def piece(pace: PromptPace, before: int, tokens: int, seconds: float) -> None:
    pace.begin_piece()
    pace.end_piece(before, tokens, seconds)


def test_pieces_are_whole_batches_unless_an_answer_runs() -> None:
    pace = PromptPace()
    assert pace.piece_tokens(0) == BATCH_TOKENS
    pace.answer_begins()
    assert 1 < pace.piece_tokens(0) < BATCH_TOKENS
    pace.answer_ends()
    assert pace.piece_tokens(0) == BATCH_TOKENS


def test_a_piece_beside_an_answer_takes_the_allowed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pace, "_STEP_SECONDS", 0.1)
    pace = PromptPace()
    piece(pace, 0, 64, 64.0)  # not beside an answer
    pace.answer_begins()
    piece(pace, 0, 10, 0.04)
    piece(pace, 100, 0, 7.0)  # not measured
    assert [pace.piece_tokens(before) for before in (0, 511, 6000)] == [25, 25, 25]
    for _ in range(50):
        piece(pace, 600, 25, 1.0)  # 40 ms per token
    assert [pace.piece_tokens(before) for before in (0, 511, 512, 6000)] == [25, 25, 2, 2]
    for _ in range(50):
        piece(pace, 6000, 2, 1.0)
        piece(pace, 0, 64, 0.0064)
    assert [pace.piece_tokens(before) for before in (0, 511, 512, 6000)] == [BATCH_TOKENS, BATCH_TOKENS, 2, 1]


def test_a_piece_and_the_answers_share_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pace, "_STEP_SECONDS", 0.1)
    pace, now = PromptPace(), 0.0
    monkeypatch.setattr(_pace, "time", SimpleNamespace(monotonic=lambda: now))

    def step(seconds: float) -> None:
        nonlocal now
        last = pace.note_step(None)
        now += seconds
        pace.note_step(last)

    pace.answer_begins()
    step(1 / 64)
    piece(pace, 0, 8, 5 / 64)  # 8 ms per token, and the answer's part
    assert pace.piece_tokens(0) == 10
    pace.answer_begins()
    assert pace.piece_tokens(0) == 9  # two answers are expected to take half as long again as one
    last = pace.note_step(None)
    pace.answer_begins()
    now += 1.0
    pace.note_step(last)  # not measured, because an answer began
    step(1 / 32)
    assert pace.piece_tokens(0) == 8
    pace.answer_ends()
    pace.answer_ends()
    assert pace.piece_tokens(0) == 10


def test_more_answers_than_measured_are_expected_to_take_less_than_in_proportion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SmolLM2-135M with one thread: in proportion, the piece beside five answers would have 8 tokens."""
    pace, now = PromptPace(), 0.0
    monkeypatch.setattr(_pace, "time", SimpleNamespace(monotonic=lambda: now))
    pace.answer_begins()
    last = pace.note_step(None)
    now += 0.017
    pace.note_step(last)
    piece(pace, 0, 8, 0.017 + 8 * 0.01)
    for _ in range(4):
        pace.answer_begins()
    assert pace.piece_tokens(0) == 5  # their step really takes 57 ms


def test_a_piece_beside_slow_answers_takes_as_long_as_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, now = PromptPace(), 0.0
    monkeypatch.setattr(_pace, "time", SimpleNamespace(monotonic=lambda: now))
    pace.answer_begins()
    step = pace.note_step(None)
    for _ in range(50):
        now += 0.25
        step = pace.note_step(step)
        pace.begin_piece()
        now += 0.375
        step = pace.note_step(step)
        pace.end_piece(0, 5, 0.375)
        now += 0.5  # the piece may have ended within it
        step = pace.note_step(step)
    assert pace.piece_tokens(0) == 10  # 25 ms each, for as long as a step


def begun(prompt: Prompt) -> int:
    """Begins a piece; returns where it ends."""
    tokens = prompt.begin_piece()["prompt"]
    assert isinstance(tokens, list)
    return len(tokens)


def test_a_piece_that_llamacpp_did_not_begin_is_not_computed() -> None:
    prompt = Prompt(tuple(range(1000)), 100, PromptPace())
    begun(prompt)
    prompt.end_piece()
    assert prompt.computed == tuple(range(100))
