"""Writes the synthetic engine's texts to a file, for the server in C++."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from struct import Struct

from doherty_engine import Conversation, EngineRequest, Message, Role, StepOutput, Stopping, create_engine
from transport_bench.engine_log import PROMPT
from transport_bench.loads import LOADS

_COUNT = Struct("<I")
_ENTRY = Struct("<HHH")
"""The numbers of tokens, characters and bytes of an output. Its text follows."""


def write_texts(path: Path) -> None:
    """Writes the outputs of every stream's answer: first their number, then each output."""
    streams = max(load.streams for load in LOADS.values())
    tokens = max(load.answer_tokens for load in LOADS.values() if load.pace)
    answers = asyncio.run(_answers(streams, tokens))
    with path.open("wb") as file:
        for outputs in answers:
            file.write(_COUNT.pack(len(outputs)))
            for output in outputs:
                text = output.text.encode()
                file.write(_ENTRY.pack(output.token_count, len(output.text), len(text)) + text)


async def _answers(streams: int, tokens: int) -> list[list[StepOutput]]:
    """Returns the outputs that have text, by stream."""
    engine = create_engine("synthetic", {"tokens_per_second": "0", "slots": str(streams)})
    answers: dict[str, list[StepOutput]] = {str(number): [] for number in range(streams)}
    running = set(answers)
    ended = asyncio.Event()

    def sink(outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            if output.token_count:
                answers[output.key].append(output)
            if output.is_last:
                running.discard(output.key)
        if not running:
            ended.set()

    await engine.start(sink)
    stopping = Stopping(max_output_tokens=tokens, ignore_eos=True)
    for key in answers:
        prompt = Conversation((Message(Role.USER, PROMPT + key),))
        engine.submit(EngineRequest(key, prompt, stopping=stopping))
    await ended.wait()
    await engine.stop()
    return list(answers.values())
