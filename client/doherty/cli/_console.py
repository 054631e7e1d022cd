"""A rich console without styles where the environment asks for plain text."""

from rich.console import Console

from doherty.cli._terminal import is_plain


def make_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console for stdout, or for stderr, without rich's markup."""
    return Console(stderr=stderr, width=width, markup=False, color_system=None if is_plain() else "auto")
