"""Trains an EAGLE-3 head for SmolLM2 in minutes, on what the model itself answers, so that acceptance can be measured.

`python benchmarks/gpu/train_head.py generate MODEL ROWS` asks the model thousands of made-up questions (vLLM, greedy).
`python benchmarks/gpu/train_head.py train MODEL ROWS OUT` trains a head on the answers, and writes OUT/small for MODEL
and OUT/wide for MODEL as _widen.py makes it. The head learns from its own drafts, DRAFTS in a row, as it will be used.
The ten questions of the reference are not among those that it learns from.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import torch  # pyright: ignore[reportMissingImports] - only the GPU machine has it
from torch import Tensor  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from _eagle3_head import TARGET_LAYERS, Attended, Eagle3Head, write
from _learning_questions import questions

DRAFTS = 5
MAX_WORDS = 32_000
HELD_BACK = 64
"""The number of answers that are kept for the test at the end."""
_RATE, _LM_HEAD_FACTOR = 1e-3, 0.1
_LATER_FACTOR = 0.8
"""The factor of each further draft in the loss: it is only useful if all earlier ones were right."""
_NO_WORD = -100
BATCH = 48
"""Answers per step."""
Row = tuple[list[int], list[int]]
"""The token ids of a prompt, and those of its answer."""


def generate(model: str, file: Path, count: int, longest: int) -> None:
    """Writes the rows."""
    vllm: Any = import_module("vllm")
    tokenizer: Any = import_module("transformers").AutoTokenizer.from_pretrained(model)
    prompts = [
        list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=True
            )["input_ids"]
        )
        for text in questions(count)
    ]
    llm = vllm.LLM(
        model=model,
        dtype="bfloat16",
        attention_backend="FLASH_ATTN",
        max_num_seqs=1024,
        max_model_len=512,
        gpu_memory_utilization=0.15,
        kv_cache_memory_bytes=8 << 30,
        enable_prefix_caching=False,
        performance_mode="throughput",
        max_num_batched_tokens=8192,
    )
    begun = time.monotonic()
    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts],
        vllm.SamplingParams(temperature=0, max_tokens=longest, detokenize=False),
        use_tqdm=False,
    )
    rows = [(prompt, list(output.outputs[0].token_ids)) for prompt, output in zip(prompts, outputs, strict=True)]
    file.write_text(json.dumps(rows))
    tokens = sum(len(answer) for _, answer in rows)
    print(f"{len(rows)} answers, {tokens} tokens in {time.monotonic() - begun:.0f} s", flush=True)


class Trainer:
    """A head in training, and its target.

    Args:
        model: the target's folder.
        rows: what it answered.
        device: of torch.
    """

    def __init__(self, model: Path, rows: Sequence[Row], device: str) -> None:
        self._device = device
        models: Any = import_module("transformers").AutoModelForCausalLM
        self._target = models.from_pretrained(str(model), dtype=torch.bfloat16).to(device).eval()
        self._embeddings: Tensor = self._target.model.embed_tokens.weight.detach()
        vocabulary, width = self._embeddings.shape
        counts = torch.bincount(torch.tensor([token for _, answer in rows for token in answer]), minlength=vocabulary)
        most = torch.argsort(counts, descending=True, stable=True)[: min(MAX_WORDS, vocabulary)]
        self.words = torch.sort(most).values
        self._draft_ids = torch.full((vocabulary,), _NO_WORD, device=device)
        self._draft_ids[self.words.to(device)] = torch.arange(len(self.words), device=device)
        self.head = Eagle3Head(width, len(self.words)).to(device)
        with torch.no_grad():
            self.head.lm_head.weight.copy_(self._embeddings[self.words.to(device)].float())
            self.head.norm.weight.copy_(self._target.model.norm.weight.float())
        lm_head = [self.head.lm_head.weight]
        others = [tensor for name, tensor in self.head.named_parameters() if name != "lm_head.weight"]
        self._optimizer = torch.optim.AdamW(
            [{"params": lm_head, "factor": _LM_HEAD_FACTOR}, {"params": others, "factor": 1.0}],
            lr=_RATE,
            betas=(0.9, 0.95),
            weight_decay=0.01,
        )

    def learn(self, rows: Sequence[Row], rate: float) -> tuple[float, list[float]]:
        """Runs one step. Returns the loss, and how often the first, the first two, ... drafts were right."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        with torch.autocast(self._device, torch.bfloat16):
            loss, right = self._loss(rows)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self._optimizer.step()
        return float(loss.detach()), right

    def test(self, rows: Sequence[Row]) -> list[float]:
        """Returns how often the first, the first two, ... drafts are right."""
        with torch.no_grad(), torch.autocast(self._device, torch.bfloat16):
            return self._loss(rows)[1]

    def _loss(self, rows: Sequence[Row]) -> tuple[Tensor, list[float]]:
        tokens, answered = self._batch(rows)
        with torch.no_grad():
            states = self._target.model(tokens, output_hidden_states=True, use_cache=False).hidden_states
        hidden = self.head.fc(torch.cat([states[layer] for layer in TARGET_LAYERS], -1))[:, :-1]
        length = hidden.shape[1]
        padded_tokens, padded_answered = (functional.pad(part, (0, DRAFTS + 1)) for part in (tokens, answered))
        attended: Attended = []
        loss = torch.zeros((), device=self._device)
        right: list[float] = []
        all_right = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
        for step in range(DRAFTS):
            # At position p draft number `step` sees token p + step + 1, and drafts the one behind it.
            known = padded_tokens[:, step + 1 : step + 1 + length]
            targets = padded_tokens[:, step + 2 : step + 2 + length]
            counted = padded_answered[:, step + 2 : step + 2 + length]
            hidden = self.head.draft(self._embeddings[known].to(hidden.dtype), hidden, attended)
            logits = self.head.logits(hidden[counted])
            goal = self._draft_ids[targets[counted]]
            loss = loss + _LATER_FACTOR**step * functional.cross_entropy(logits.float(), goal, ignore_index=_NO_WORD)
            hit = torch.zeros_like(counted)
            hit[counted] = logits.argmax(-1) == goal
            all_right = all_right & hit
            right.append(float(all_right[counted].float().mean()))
        return loss, right

    def _batch(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """The tokens, and which of them are a head's to draft: an answer's, but for its first, which no head drafts."""
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        answered = torch.zeros(len(rows), longest, dtype=torch.bool)
        for number, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            tokens[number, :end] = torch.tensor(prompt + answer)
            answered[number, len(prompt) + 1 : end] = True
        return tokens.to(self._device), answered.to(self._device)


def train(model: Path, file: Path, out: Path, seconds: float, device: str) -> None:
    """Trains for `seconds`, and writes both forms."""
    torch.manual_seed(1)
    rows: list[Row] = json.loads(file.read_text())
    held_back, rows = rows[:HELD_BACK], rows[HELD_BACK:]
    trainer = Trainer(model, rows, device)
    random = Random(2)  # noqa: S311 - no secret
    begun, steps, done = time.monotonic(), 0, 0.0
    while done < 1:
        random.shuffle(rows)
        for first in range(0, len(rows) - BATCH + 1, BATCH):
            done = (time.monotonic() - begun) / seconds
            if done >= 1:
                break
            rate = _RATE * min(1.0, (steps + 1) / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
            loss, right = trainer.learn(rows[first : first + BATCH], rate)
            steps += 1
            if steps % 200 == 1:
                print(
                    f"{time.monotonic() - begun:.0f} s, step {steps}: loss {loss:.3f}, right {_shares(right)}",
                    flush=True,
                )
    right = trainer.test(held_back)
    print(f"held back: right {_shares(right)}, {1 + sum(right[:3]):.2f} tokens a step with 3 drafts", flush=True)
    for name in ("small", "wide"):
        write(trainer.head, trainer.words, model, out / name, wide=name == "wide")


def _shares(right: Sequence[float]) -> str:
    return ", ".join(f"{share:.3f}" for share in right)


def main() -> None:
    """Generates or trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    generating = commands.add_parser("generate")
    generating.add_argument("model")
    generating.add_argument("file", type=Path)
    generating.add_argument("--count", type=int, default=24_000)
    generating.add_argument("--longest", type=int, default=200)
    training = commands.add_parser("train")
    training.add_argument("model", type=Path)
    training.add_argument("file", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--seconds", type=float, default=120)
    training.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.command == "generate":
        generate(arguments.model, arguments.file, arguments.count, arguments.longest)
    else:
        train(arguments.model, arguments.file, arguments.out, arguments.seconds, arguments.device)


if __name__ == "__main__":
    main()
