"""`doherty.testing` obeys the contract: it passes tests of the real server, as far as its scripted answers can."""

from collections.abc import Iterator

import pytest

from contract.test_answers import (
    test_a_stream_has_one_start_one_summary_and_no_empty_message,
    test_every_delta_counts_its_tokens_and_has_all_ids_or_none,
    test_the_deltas_together_are_the_unary_answer,
    test_the_ids_of_a_delta_are_those_of_its_text,
    test_the_trailing_metadata_contains_the_same_timings,
    test_timings_are_consistent_in_every_reply,
)
from contract.test_multiplex import (
    rpc,
    test_answers_continue_after_half_closing,
    test_every_request_ends_exactly_once,
    test_multiplexed_answers_equal_those_of_separate_calls,
)
from doherty import Delta, TokenLogprob
from doherty.testing import FakeServer
from support.wire import Caller, connect

__all__ = [
    "rpc",
    "test_a_stream_has_one_start_one_summary_and_no_empty_message",
    "test_answers_continue_after_half_closing",
    "test_every_delta_counts_its_tokens_and_has_all_ids_or_none",
    "test_every_request_ends_exactly_once",
    "test_multiplexed_answers_equal_those_of_separate_calls",
    "test_the_deltas_together_are_the_unary_answer",
    "test_the_ids_of_a_delta_are_those_of_its_text",
    "test_the_trailing_metadata_contains_the_same_timings",
    "test_timings_are_consistent_in_every_reply",
]

WORDS = ["The", " sky", " is", " blue", ":", " air", " scatters", " light", ".", " 😀", " Always", "."]
DELTAS = [
    Delta(word, (number,), (TokenLogprob(number, word.encode(), -0.5),)) for number, word in enumerate(WORDS, start=1)
]


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with FakeServer(DELTAS) as server, connect(server.target) as connected:
        yield connected
