"""The command `doherty engine` and its subcommands."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click

from doherty_engine import EngineSetupError, engine_names, engine_profiles, prepare_engine

_USAGE = 2
"""The exit code if the engine cannot be set up; the same as that of `doherty serve`."""
_GPU_ENGINE = "trtllm"

_Command = TypeVar("_Command", bound=Callable[..., None])


_EXAMPLES = """\
\b
Examples:
  doherty engine show
  doherty engine prepare --profile fast
  doherty engine verify --output verify
"""
_EXAMPLES_OF_SHOW = """\
\b
Examples:
  doherty engine show
  doherty engine show interactive > mine.toml
  doherty engine show fast --engine vllm --json
"""
_EXAMPLES_OF_PREPARE = """\
\b
Examples:
  doherty engine prepare --profile fast
  doherty engine prepare --engine vllm --model meta-llama/Llama-3.1-8B-Instruct -o checkpoint_cache=checkpoints
"""
_EXAMPLES_OF_VERIFY = """\
\b
Examples:
  doherty engine verify --output verify
  doherty engine verify --contract-only
  doherty engine verify --engine vllm --model meta-llama/Llama-3.1-8B-Instruct --skip-quality --json
"""


@click.group(name="engine", epilog=_EXAMPLES)
def engine() -> None:
    """Show an engine's profiles, prepare a model for it, and verify that it works on this machine."""


def takes_options(command: _Command) -> _Command:
    """Adds the options of engines to a command."""
    for parameter in (
        click.option(
            "--engine-option",
            "-o",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help="An engine option; can be repeated.",
        ),
        click.option("--profile", default="", help="One of the engine's profiles; `doherty engine show` lists them."),
        click.option("--revision", default="", help="A commit, branch or tag of a model on the Hugging Face Hub."),
        click.option(
            "--model",
            default="",
            help="A path or a Hugging Face Hub id; empty selects the engine's default model.",
        ),
    ):
        command = parameter(command)
    return command


def read_options(model: str, revision: str, profile: str, pairs: Iterable[str]) -> dict[str, str]:
    """Returns the engine's options, unparsed."""
    options: dict[str, str] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE.")
        options[key.strip()] = text
    named = {"model": model, "revision": revision, "profile": profile}
    return options | {name: text for name, text in named.items() if text}


def stop(error: Exception) -> None:
    """Prints an error and exits."""
    sys.stderr.write(f"{error}\n")
    sys.exit(_USAGE)


@engine.command(epilog=_EXAMPLES_OF_SHOW)
@click.argument("profile", required=False)
@click.option("--engine", "name", type=click.Choice(engine_names()), default=_GPU_ENGINE, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(profile: str | None, name: str, *, as_json: bool) -> None:
    """Print PROFILE as TOML, or without PROFILE the names of all profiles.

    You can save the output to a file, change it, and use the file with the engine option profile_file.
    """
    profiles = engine_profiles(name)
    if not profiles:
        raise click.UsageError(f"The engine {name} has no profiles.")
    if profile is None:
        click.echo(json.dumps(list(profiles), indent=2) if as_json else "\n".join(profiles))
        return
    if profile not in profiles:
        raise click.UsageError(f"The engine {name} has no profile {profile!r}; it has {', '.join(profiles)}.")
    if as_json:
        click.echo(json.dumps(profiles[profile], indent=2))
        return
    click.echo(f"# profile {profile} of the engine {name}")
    for option, value in profiles[profile].items():
        click.echo(f"{option} = {json.dumps(value)}")  # for these values, JSON is valid TOML


@engine.command(epilog=_EXAMPLES_OF_PREPARE)
@click.option("--engine", "name", type=click.Choice(engine_names()), default=_GPU_ENGINE, show_default=True)
@takes_options
def prepare(name: str, model: str, revision: str, profile: str, pairs: tuple[str, ...]) -> None:
    """Download a model, check it, and build what the engine needs.

    You can interrupt it at any time. The next run skips completed steps, and no incomplete file is ever used.
    """
    try:
        result = prepare_engine(
            name, read_options(model, revision, profile, pairs), lambda progress: click.echo(progress, err=True)
        )
    except EngineSetupError as error:
        stop(error)
    else:
        click.echo(result)


@engine.command(epilog=_EXAMPLES_OF_VERIFY)
@click.option("--engine", "name", type=click.Choice(("trtllm", "vllm")), default=_GPU_ENGINE, show_default=True)
@takes_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("verify"),
    show_default=True,
    help="The folder for report.md and report.json.",
)
@click.option(
    "--checkpoint", default="", help="vllm: the checkpoint from `prepare` that the profiles fast and fastest serve."
)
@click.option(
    "--contract-only", is_flag=True, help="trtllm: only compare names, signatures and fields; start no server."
)
@click.option(
    "--skip-quality", is_flag=True, help="Do not measure the quality loss of FP8, which takes two more starts."
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of report.md.")
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
    as_json: bool,  # noqa: FBT001
) -> None:
    """Verify on this machine's GPU that an engine does what Doherty relies on, and measure it.

    It runs several profiles (trtllm: fast and slow; vllm: slow, fast, and fastest if the option draft is set). For each
    profile it sends the ten questions of the reference, the longest possible prompt, a cancelled request and parallel
    streams. It also measures the quality loss of FP8. For trtllm it first compares the installed package with the
    interface that Doherty uses. The first run takes up to half an hour.
    """
    # Imported here, because the other commands do not need them.
    from doherty import DohertyError  # noqa: PLC0415
    from doherty_engine_cli._trtllm import verify_trtllm  # noqa: PLC0415
    from doherty_engine_cli._vllm import verify_vllm  # noqa: PLC0415

    if profile:
        raise click.UsageError("verify runs several profiles and does not accept --profile.")
    if (name == "vllm" and contract_only) or (name == "trtllm" and checkpoint):
        raise click.UsageError("--contract-only is for trtllm only, and --checkpoint for vllm only.")
    options = read_options(model, revision, "", pairs)

    def report(progress: str) -> None:
        click.echo(progress, err=True)

    try:
        if name == "vllm":
            problems = verify_vllm(options, checkpoint, output, report, measures_quality=not skip_quality)
        else:
            problems = verify_trtllm(options, output, report, runs=not contract_only, measures_quality=not skip_quality)
    except (EngineSetupError, DohertyError) as error:
        stop(error)
    else:
        shown = output / ("report.json" if as_json else "report.md")
        click.echo(shown.read_text(encoding="utf-8"))
        if problems:
            sys.exit(1)
