"""Requests that cost an engine as much work as possible, and some that it must refuse."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from doherty.v1.request_pb2 import Constraint, GenerateRequest, Stopping
from messages import GENERATE, call
from target import Attack, Target

CONTEXT_WORDS = 1_900
CHARACTERS = 32_000
ANY_END = Stopping(max_output_tokens=16)


def ask(request: GenerateRequest, at_once: int = 4) -> Attack:
    """Repeats a request, with as many at once as the attacker's key allows."""
    return call(GENERATE, request.SerializeToString(), at_once=at_once)


def ask_each(requests: Sequence[GenerateRequest], at_once: int = 4) -> Attack:
    """Sends several requests, with as many at once as the attacker's key allows."""
    attacks = [call(GENERATE, request.SerializeToString(), in_a_row=1) for request in requests]

    def attack(target: Target) -> None:
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(lambda attack: attack(target), attacks))

    return attack


def constrained(constraint: Constraint) -> Attack:
    """Requests short answers under a constraint."""
    return ask(GenerateRequest(prompt="a", stopping=ANY_END, constraint=constraint))


ALTERNATIVES = ",".join(f'{{"const":"{number}"}}' for number in range(CHARACTERS // 20))
RULES = "\n".join(f'r{number} ::= "a" r{number + 1} | "b" r{number + 1}' for number in range(CHARACTERS // 36))

ENGINE_WORK: dict[str, Attack] = {
    "prompts as long as the context": ask(GenerateRequest(raw_text=" because" * CONTEXT_WORDS, stopping=ANY_END)),
    "8 prompts of 6,000 tokens": ask_each(
        [GenerateRequest(token_ids=range(first, first + 6_000), stopping=ANY_END) for first in range(100, 108)]
    ),
    "token ids beyond the vocabulary": ask(GenerateRequest(token_ids=[2**32 - 1] * CONTEXT_WORDS, stopping=ANY_END)),
    "token ids as long as the context": ask(GenerateRequest(token_ids=[100] * CONTEXT_WORDS, stopping=ANY_END)),
    "schema of 1,600 alternatives": constrained(Constraint(json_schema=f'{{"anyOf":[{ALTERNATIVES}]}}')),
    "schema that is nested 1,200 deep": constrained(
        Constraint(json_schema='{"type":"array","items":' * (CHARACTERS // 26) + "true" + "}" * (CHARACTERS // 26))
    ),
    "regex of nested repetitions": constrained(Constraint(regex="((((a{1,100}){1,100}){1,100}){1,100})")),
    "grammar of 888 rules": constrained(Constraint(grammar=f'root ::= r0\n{RULES}\nr{CHARACTERS // 36} ::= "c"')),
    "grammar that calls itself": constrained(Constraint(grammar="root ::= root root | root")),
}
