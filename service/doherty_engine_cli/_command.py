"""The command `doherty engine`: what an engine's profiles are, and what can be done before it serves."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click

from doherty_engine import EngineSetupError, engine_names, engine_profiles, prepare_engine

_USAGE = 2
"""The exit code of what cannot be set up, as that of `doherty serve`."""
_GPU_ENGINE = "trtllm"

_Command = TypeVar("_Command", bound=Callable[..., None])


@click.group(name="engine")
def engine() -> None:
    """Show the profiles of an engine, prepare a model for it, and prove that it works here."""


def takes_options(command: _Command) -> _Command:
    """Adds an engine's options to a command, as `doherty serve` has them."""
    for parameter in (
        click.option(
            "--engine-option", "-o", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine."
        ),
        click.option("--profile", default="", help="One of the engine's profiles; `doherty engine show` lists them."),
        click.option("--revision", default="", help="The commit, branch or tag of a model on the hub."),
        click.option("--model", default="", help="A path or a hub id; empty takes the engine's default."),
    ):
        command = parameter(command)
    return command


def read_options(model: str, revision: str, profile: str, pairs: Iterable[str]) -> dict[str, str]:
    """The engine's options as text."""
    options: dict[str, str] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE.")
        options[key.strip()] = text
    named = {"model": model, "revision": revision, "profile": profile}
    return options | {name: text for name, text in named.items() if text}


def stop(error: EngineSetupError) -> None:
    """Ends with the sentence of an error."""
    sys.stderr.write(f"{error}\n")
    sys.exit(_USAGE)


@engine.command()
@click.argument("profile", required=False)
@click.option("--engine", "name", type=click.Choice(engine_names()), default=_GPU_ENGINE, show_default=True)
def show(profile: str | None, name: str) -> None:
    """Print PROFILE as TOML, or the names of all.

    What is printed can be kept in a file and changed (the engine's option profile_file).
    """
    found = engine_profiles(name)
    if not found:
        raise click.UsageError(f"The engine {name} has no profiles.")
    if profile is None:
        click.echo("\n".join(found))
        return
    if profile not in found:
        raise click.UsageError(f"The engine {name} has no profile {profile!r}; it has {', '.join(found)}.")
    click.echo(f"# profile {profile} of the engine {name}")
    for knob, value in found[profile].items():
        click.echo(f"{knob} = {json.dumps(value)}")  # which TOML writes alike


@engine.command()
@click.option("--engine", "name", type=click.Choice(engine_names()), default=_GPU_ENGINE, show_default=True)
@takes_options
def prepare(name: str, model: str, revision: str, profile: str, pairs: tuple[str, ...]) -> None:
    """Fetch a model, check it, and build what the engine runs.

    It can be broken off at any time: what is done is not done again, and nothing is left half-made.
    """
    try:
        done = prepare_engine(
            name, read_options(model, revision, profile, pairs), lambda doing: click.echo(doing, err=True)
        )
    except EngineSetupError as error:
        stop(error)
    else:
        click.echo(done)


@engine.command()
@click.option("--engine", "name", type=click.Choice(("trtllm", "vllm")), default=_GPU_ENGINE, show_default=True)
@takes_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("verify"),
    show_default=True,
    help="The folder for the report: report.md and report.json.",
)
@click.option(
    "--checkpoint", default="", help="vllm: what fast and fastest serve, as `prepare` has made it of the model."
)
@click.option("--contract-only", is_flag=True, help="trtllm: compare names, signatures and fields, and run nothing.")
@click.option("--skip-quality", is_flag=True, help="Do not find out what FP8 costs, which takes two more starts.")
def verify(  # noqa: PLR0913, PLR0917 - one for each flag
    name: str,
    model: str,
    revision: str,
    profile: str,
    pairs: tuple[str, ...],
    output: Path,
    checkpoint: str,
    contract_only: bool,  # noqa: FBT001 - click's
    skip_quality: bool,  # noqa: FBT001
) -> None:
    """Prove on this machine's GPU that an engine does what Doherty relies on, and measure it.

    It runs several profiles (trtllm: fast and slow; vllm: slow, fast, and fastest where a head is named): ten questions
    as the reference measured them, the longest prompt, cancellation, streams, and what quality FP8 costs. For trtllm it
    first compares the installed package with what is relied on. It takes up to half an hour the first time.
    """
    # The other commands need neither of them.
    from doherty_engine_cli._trtllm import verify_trtllm  # noqa: PLC0415
    from doherty_engine_cli._vllm import verify_vllm  # noqa: PLC0415

    if profile:
        raise click.UsageError("verify runs several profiles; leave --profile out.")
    if (name == "vllm" and contract_only) or (name == "trtllm" and checkpoint):
        raise click.UsageError("--contract-only is for trtllm, and --checkpoint for vllm.")
    options = read_options(model, revision, "", pairs)

    def report(doing: str) -> None:
        click.echo(doing, err=True)

    try:
        if name == "vllm":
            problems = verify_vllm(options, checkpoint, output, report, measures_quality=not skip_quality)
        else:
            problems = verify_trtllm(options, output, report, runs=not contract_only, measures_quality=not skip_quality)
    except EngineSetupError as error:
        stop(error)
    else:
        click.echo((output / "report.md").read_text(encoding="utf-8"))
        if problems:
            sys.exit(1)
