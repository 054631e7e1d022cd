"""Chunks of llama.cpp that the packaged model does not produce."""

import math

import pytest

from doherty_engine import TokenLogprob
from doherty_engine.llamacpp._chunks import read_logprob
from doherty_engine.llamacpp._gguf import Gguf
from doherty_engine.llamacpp._vocabulary import Vocabulary

VOCABULARY = Vocabulary(Gguf({"tokenizer.ggml.model": "gpt2"}, ("a", "b"), (1, 1)))


@pytest.mark.parametrize("unknown", [math.nan, math.inf, None])
def test_a_log_probability_that_is_not_a_number_is_absent(unknown: float | None) -> None:
    entry = {"id": 0, "logprob": unknown, "top_logprobs": [{"id": 0, "logprob": unknown}]}
    assert read_logprob(entry, 0, VOCABULARY) is None
    beside = {"id": 1, "logprob": -1.0, "top_logprobs": [{"id": 0, "logprob": unknown}]}
    assert read_logprob(beside, 1, VOCABULARY) is None
    assert read_logprob(beside, 0, VOCABULARY) == TokenLogprob(1, b"b", -1.0)
