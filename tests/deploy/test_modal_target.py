"""The messages of the command about targets on Modal that cannot be used."""

import pytest

from doherty.cli import _modal
from doherty_extras import install_command
from support.command import run_doherty
from support.modal_account import APP, account
from support.modal_cloud import Cloud


def test_the_command_and_the_app_use_the_same_class() -> None:
    assert f"class {_modal.CLASS}:" in APP.read_text()


@pytest.mark.parametrize(
    ("target", "code", "part"),
    [
        ("modal:", 2, "is not modal:NAME"),
        ("modal:doherty,localhost:50051", 2, "is not modal:NAME"),
        ("modal:elsewhere", 3, "Modal cannot start elsewhere: "),
    ],
)
def test_a_missing_app_is_reported_in_a_sentence(cloud: Cloud, target: str, code: int, part: str) -> None:
    finished = run_doherty("model", "--target", target, **account(cloud))
    assert finished.returncode == code
    *_, line = finished.stderr.splitlines()
    assert part in line


def test_a_missing_account_is_reported_in_a_sentence() -> None:
    finished = run_doherty("model", "--target", "modal:doherty", MODAL_CONFIG_PATH="/dev/null")
    assert finished.returncode == 3
    assert "Token missing" in finished.stderr.splitlines()[-1]


def test_without_the_extra_the_command_says_what_to_install() -> None:
    finished = run_doherty("model", "--target", "modal:doherty", without="modal")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"doherty: A target on Modal needs modal: {install_command('modal')}\n"
