"""Checks real text on a GPU: SmolLM2's answers through our server, and the effect of n-gram speculation.

`python benchmarks/gpu/text.py [GGUF]` starts two servers, one of them with speculation, and prints the outcome of each
check. The exit code is 1 if a check fails.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from _sides import launch, running, save, stop, wait_until_ready
from _smollm2 import convert, packaged_file
from doherty import Client, GenerateOptions, Generation
from doherty.cli import QUESTIONS

TOKENS = 120
NGRAM = 4
PASSAGE = (
    "The lighthouse keeper climbed the winding stairs every evening, trimmed the wick, filled the lamp with oil, and "
    "watched the ships pass along the rocky coast until the sun rose again over the quiet harbour."
)
REPEATING = (
    f"Repeat this text word by word, twice: {PASSAGE}",
    "Write a Python list of the numbers from one to thirty as words, and then the same list again.",
    "Count from 1 to 40, one number a line.",
    "Write the names of the days of the week ten times, one line for each time.",
)
SCHEMA = {
    "type": "object",
    "properties": {"colors": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}},
    "required": ["colors"],
    "additionalProperties": False,
}
OPTIONS = {
    "profile": "slow",
    "attention_backend": "FLASH_ATTN",
    "max_model_len": "2048",
    "gpu_memory_utilization": "0.1",
    "engine_args": json.dumps({"kv_cache_memory_bytes": 1 << 30}),
}
NAMES = ("plain", "n-gram")


def checks(client: Client) -> Iterator[tuple[str, bool, object]]:
    """Yields the checks of real text: the name, whether it succeeded, and the actual value."""
    answers: list[str] = []
    same: list[bool] = []
    for question in QUESTIONS:
        with client.stream_generate(question, temperature=0, max_output_tokens=TOKENS) as stream:
            deltas = [delta.text for delta in stream]
        whole = client.generate(question, temperature=0, max_output_tokens=TOKENS)
        answers.append("".join(deltas))
        same.append(answers[-1] == whole.text and len(deltas) > 1)
        print(f"  {question} -> {whole.text[:90]!r} ({whole.usage.output_tokens} tokens)")
    yield "deltas joined equal the unary answer, ten questions", all(same), f"{sum(same)} of {len(same)}"
    stopped = client.generate(QUESTIONS[4], temperature=0, max_output_tokens=TOKENS, stop=[".", "!"])
    holds = stopped.stop_text == "." and answers[4].startswith(stopped.text + ".")
    yield "a stop text ends the answer where it first stands", holds, stopped.text
    parsed = client.generate("Name some colors.", temperature=0, max_output_tokens=TOKENS, schema=SCHEMA).parsed
    yield "an answer fits its schema", set(parsed["colors"]) <= {"red", "green", "blue"}, parsed
    choice = client.generate("Is water wet?", options=GenerateOptions(choices=["yes", "no"]))
    yield "a choice is one of them", choice.text in {"yes", "no"}, choice.text
    drawn = [client.generate("Tell me a story.", temperature=1, seed=seed, max_output_tokens=40) for seed in (7, 7, 8)]
    yield "a seed repeats an answer", drawn[0].text == drawn[1].text, drawn[0].text
    yield "another seed gives another answer", drawn[0].text != drawn[2].text, drawn[2].text
    with client.stream_generate(
        QUESTIONS[5], temperature=0, max_output_tokens=TOKENS, options=GenerateOptions(token_ids=True)
    ) as stream:
        whole = stream.result()
    held = GenerateOptions(continue_from=whole.text[: len(whole.text) // 2])
    rest = client.generate(QUESTIONS[5], temperature=0, max_output_tokens=TOKENS, options=held)
    yield "an answer goes on behind a held part", bool(rest.text), (whole.text, rest.text)
    again = client.generate(QUESTIONS[5], temperature=0, max_output_tokens=4)
    yield "a prompt that was seen is in the KV cache", bool(again.usage.cached_tokens), again.usage.cached_tokens


def speculation(plain: Client, ngram: Client) -> dict[str, dict[str, object]]:
    """Measures the time per token with and without speculation, for the questions and for repetitive texts."""
    results: dict[str, dict[str, object]] = {}
    for name, prompts in (("ten questions", QUESTIONS), ("repeating texts", REPEATING)):
        rows = [(_ask(plain, prompt), _ask(ngram, prompt)) for prompt in prompts]
        drafted = [row.speculation for _, row in rows if row.speculation is not None]
        drafts, accepted = (
            sum(getattr(answer, field) for answer in drafted) for field in ("draft_tokens", "accepted_tokens")
        )
        steps = sum(answer.steps for answer in drafted)
        results[name] = {
            "tpot_plain_ms": _pace(row for row, _ in rows),
            "tpot_ngram_ms": _pace(row for _, row in rows),
            "drafted": drafts,
            "accepted": accepted,
            "tokens_per_step": sum(row.usage.output_tokens for _, row in rows) / steps if steps else None,
            "same_text": f"{sum(answer.text == other.text for answer, other in rows)} of {len(rows)}",
        }
    return results


def _ask(client: Client, prompt: str) -> Generation[None]:
    return client.generate(prompt, temperature=0, max_output_tokens=200)


def _pace(rows: Iterable[Generation[None]]) -> float:
    return 1e3 * median(row.timings.time_per_output_token or 0.0 for row in rows)


def start(source: Path | None, state: Path) -> None:
    """Converts the model, and starts both servers. They keep running."""
    folder = state / "smollm2"
    if not (folder / "model.safetensors").exists():
        convert(source or packaged_file(), folder)
    plain = OPTIONS | {"model": str(folder)}
    speculating = plain | {"ngram": str(NGRAM)}
    launches = [
        launch(name, "doherty", "vllm", flags, state) for name, flags in zip(NAMES, (plain, speculating), strict=True)
    ]
    for name, side in zip(NAMES, wait_until_ready(launches), strict=True):
        save(state / name, [side])


def measure(state: Path, out: Path) -> bool:
    """Runs the checks, measures, and returns whether all checks succeeded."""
    (first,), (other,) = (running(state / name) for name in NAMES)
    with Client(first.target, timeout=300) as plain, Client(other.target, timeout=300) as ngram:
        outcomes: list[tuple[str, bool, object]] = []
        for name, server in zip(NAMES, (plain, ngram), strict=True):
            outcomes += [(f"{name}: {what}", holds, seen) for what, holds, seen in checks(server)]
        for what, holds, seen in outcomes:
            print(f"{'holds' if holds else 'FAILS'}: {what}: {seen!r}"[:300])
        result = speculation(plain, ngram)
    print(json.dumps(result, indent=1))
    (out / "text.json").write_text(json.dumps({"checks": outcomes, "speculation": result}, default=str, indent=1))
    return all(holds for _, holds, _ in outcomes)


def main() -> None:
    """Runs the named steps; by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--step", choices=("start", "measure", "stop"), action="append")
    parser.add_argument("--state", type=Path, default=Path("/tmp/doherty-gpu"))  # noqa: S108 - not secret
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    state, steps = arguments.state, arguments.step or ("start", "measure", "stop")
    holds = True
    if "start" in steps:
        start(arguments.gguf, state)
    if "measure" in steps:
        holds = measure(state, arguments.out)
    if "stop" in steps:
        for name in NAMES:
            stop(running(state / name))
    sys.exit(not holds)


if __name__ == "__main__":
    main()
