"""The command `doherty generate`."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click

from doherty import Client, GenerateOptions, Generation, Prompt
from doherty.cli._answer import show, tell_end
from doherty.cli._connect import ServerCommand, ServerOptions, server_options
from doherty.cli._details import logged_attempts, print_details, print_logprobs, with_token_texts
from doherty.cli._prompt import prompt_options
from doherty.cli._tables import print_json


def _read_file(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Returns the text itself, or the contents of the file named after an @."""
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise click.BadParameter(str(error), ctx=context, param=parameter) from error


def _read_choices(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    return [choice for value in values for choice in _split_choices(context, parameter, value)] or None


def _split_choices(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Parses a JSON list of texts, for choices that contain commas, or texts separated by commas."""
    if not value.lstrip().startswith("["):
        return [choice.strip() for choice in value.split(",")]
    try:
        choices = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"this is not a JSON list: {error}", ctx=context, param=parameter) from error
    if not all(isinstance(choice, str) for choice in choices):
        raise click.BadParameter("every choice is a text", ctx=context, param=parameter)
    return list(choices)


_EXAMPLES: Final = """\
\b
Examples:
  doherty generate "What atoms are in water?" --temperature 0 --max-output-tokens 60
  doherty generate "Summarize this:" < report.txt
  git diff | doherty generate "Write a commit message:" --system "You are brief."
  doherty generate "Ada is 36." --schema @person.json --json | jq .text
  doherty generate "Is this spam?" --choices yes,no --logprobs 2 < mail.txt
  doherty generate "And in one word?" --messages talk.json --verbose
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@prompt_options
@click.option("--temperature", type=float, help="0 always takes the most probable token.")
@click.option("--top-p", type=float, help="Sample from the most probable tokens whose probabilities add up to this.")
@click.option("--top-k", type=int, help="Sample from this many of the most probable tokens.")
@click.option("--max-output-tokens", type=int, help="Maximum number of tokens in the answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text. Can be repeated.")
@click.option("--seed", type=int, help="Make sampling repeatable.")
@click.option("--schema", callback=_read_file, metavar="JSON|@FILE", help="A JSON Schema that the answer must fit.")
@click.option("--regex", help="A regular expression that the whole answer must match.")
@click.option("--grammar", callback=_read_file, metavar="GBNF|@FILE", help="A GBNF grammar that the answer must match.")
@click.option(
    "--choices",
    multiple=True,
    callback=_read_choices,
    metavar="A,B,...|JSON",
    help="The texts from which the answer is chosen. Can be repeated.",
)
@click.option(
    "--logprobs",
    type=int,
    metavar="N",
    help="Also print the log probability of each token, and of the N most probable tokens at its position.",
)
@click.option(
    "--time-limit",
    type=float,
    metavar="SECONDS",
    help="End the answer after this time, and print the part that was generated.",
)
@click.option("--adapter", help="The name of a LoRA adapter.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object, times in seconds.")
@click.option("--verbose", is_flag=True, help="Print each attempt, and details of the answer, to stderr.")
@server_options(timeout=60)
def generate(  # noqa: PLR0913 - the options
    *,
    server: ServerOptions,
    prompt: Prompt,
    as_json: bool,
    verbose: bool,
    top_k: int | None,
    regex: str | None,
    grammar: str | None,
    choices: list[str] | None,
    logprobs: int | None,
    **request: Any,
) -> None:
    """Generate one answer and stream it to stdout.

    The prompt is PROMPT, followed by the text from a pipe. If PROMPT is "-", the prompt is stdin, even on a terminal.
    In a shell loop that reads stdin itself, use "< /dev/null", so that the loop's input does not become part of the
    prompt. Options that are not given have the deployment's defaults.
    """
    options = GenerateOptions(top_k=top_k, regex=regex, grammar=grammar, choices=choices, top_logprobs=logprobs)
    with server.connect() as client, logged_attempts() if verbose else nullcontext():
        try:
            generation = _generate(client, prompt, {**request, "options": options}, as_json=as_json)
        except (TypeError, ValueError) as error:
            # The SDK refused the parameters.
            raise click.UsageError(str(error)) from error
    if verbose:
        print_details(generation)
    elif not as_json:
        tell_end(generation)


def _generate(client: Client, prompt: Prompt, request: dict[str, Any], *, as_json: bool) -> Generation:
    if as_json:
        generation = client.generate(prompt, **request)
        print_json(with_token_texts(generation))
        return generation
    with client.stream_generate(prompt, **request) as stream:
        generation = show(stream)
    if generation.logprobs is not None:
        print_logprobs(generation.logprobs)
    return generation
