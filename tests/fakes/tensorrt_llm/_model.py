"""The model of the fake: the contents of its folder, and a sequence of its tokens."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.fake_model import FakeModel

from ._result import Logprob


@dataclass
class Checkpoint:
    """The parts of a model folder, or of an engine built from one, that are needed to generate."""

    model: FakeModel
    context: int

    @classmethod
    def load(cls, folder: Path, eos_ids: list[int] | None = None) -> "Checkpoint":
        model = FakeModel(folder)
        if eos_ids is not None:  # an engine has no generation_config.json; its end ids are built in
            model.eos_ids = tuple(eos_ids)
        return cls(model, model.config["max_position_embeddings"])


class Sequence:
    """A sequence that is generated token by token."""

    def __init__(self, checkpoint: Checkpoint, prompt: list[int], params: Any, lora_id: int, *, cpp: bool) -> None:
        self._model = checkpoint.model
        self._ids = list(prompt)
        self._params = params
        self._cpp = cpp
        settings: tuple[object, ...] = (0.0, 0.0, 1.0)
        if cpp:  # the sampler of the PyTorch backend ignores penalties
            settings = (
                params.frequency_penalty or 0.0,
                params.presence_penalty or 0.0,
                params.repetition_penalty or 1.0,
            )
        self._settings = repr((*settings, lora_id) if lora_id else settings).encode()

    def next(self, *, is_greedy: bool) -> tuple[int, dict[int, Logprob]]:
        """Returns the next token, and the log probabilities at its position."""
        token_id = self._model.next(self._ids, self._settings + (b"" if is_greedy else self._draw()))
        logprobs = self._model.logprobs(self._ids, token_id, self._params.logprobs) if self._params.logprobs else {}
        self._ids.append(token_id)
        return token_id, {
            candidate: Logprob(value, rank) for rank, (candidate, value) in enumerate(logprobs.items(), start=1)
        }

    def _draw(self) -> bytes:
        params = self._params
        if not self._cpp:
            return _SHARED.randbytes(8)
        return repr((params.temperature, params.top_k, params.top_p, params.min_p, params.seed)).encode()


_SHARED = random.Random(42)  # noqa: S311 - no secret
"""The single random generator of the PyTorch backend, which ignores the seeds of requests."""


class _Number(float):
    """A tensor without dimensions."""

    def item(self) -> float:
        return float(self)


class _Row:
    """The logits at one position, with the methods of a tensor that perplexity needs."""

    def __init__(self, best: int, token: int, loss: float) -> None:
        self._best = best
        self._token = token
        self._loss = loss

    def float(self) -> "_Row":
        return self

    def logsumexp(self, dim: int) -> _Number:
        assert dim == -1
        return _Number(2.0 + self._loss)

    def argmax(self, dim: int) -> _Number:
        assert dim == -1
        return _Number(self._best)

    def __getitem__(self, token_id: int) -> _Number:
        assert token_id == self._token
        return _Number(0.5)


class Logits:
    """The logits of a prompt: those at a position are for the token after it."""

    def __init__(self, checkpoint: Checkpoint, prompt: list[int], loss: float) -> None:
        self.shape = (len(prompt), checkpoint.model.vocabulary_size)
        self._prompt = prompt
        self._loss = loss

    def __getitem__(self, place: int) -> _Row:
        token = self._prompt[place + 1]
        differs = self._loss and place % 25 == 0
        return _Row(token + 1 if differs else token, token, self._loss)
