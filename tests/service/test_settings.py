"""Settings from flags, the environment and a file."""

from pathlib import Path

import click.testing
import pytest
from pydantic import ValidationError

from doherty_engine import engine_names, engine_options
from doherty_service.command import serve
from doherty_service.settings import CONFIG_VARIABLE, Settings, is_loopback


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)


def test_the_defaults_are_safe() -> None:
    settings = Settings()
    assert settings.engine == "llamacpp"
    assert is_loopback(settings.listen)
    assert not settings.insecure


def test_flags_override_the_environment_which_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "doherty.toml"
    file.write_text('listen = "127.0.0.1:1"\nlatency_window = 1\ndrain_grace = 1\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("DOHERTY_LATENCY_WINDOW", "2")
    monkeypatch.setenv("DOHERTY_DRAIN_GRACE", "2")
    settings = Settings(drain_grace=3)
    assert (settings.listen, settings.latency_window, settings.drain_grace) == ("127.0.0.1:1", 2, 3)


def test_engine_options_come_from_all_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings.model_validate({"engine_option": ("a=1", "b=x=y")}).engine_option == {"a": "1", "b": "x=y"}
    monkeypatch.setenv("DOHERTY_ENGINE_OPTION", "a=1,2;b=3")
    assert Settings().engine_option == {"a": "1,2", "b": "3"}
    monkeypatch.delenv("DOHERTY_ENGINE_OPTION")
    file = tmp_path / "doherty.toml"
    file.write_text("[engine_option]\nslots = 2\nprompt_cache = false\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert Settings().engine_option == {"slots": "2", "prompt_cache": "false"}


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("localhost.:1", True),
        ("doherty.LocalHost:1", True),
        ("[0:0:0:0:0:0:0:1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("[::ffff:10.0.0.1]:1", False),
        ("localhost.example.org:1", False),
        ("notlocalhost:1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("example.org:1", False),
    ],
)
def test_loopback_addresses_are_recognized(listen: str, loopback: bool) -> None:  # noqa: FBT001 - a parameter of the table
    assert is_loopback(Settings(listen=listen).listen) is loopback


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": "50051"},
        {"listen": "a:70000"},
        {"temperature": 3},
        {"top_p": 0},
        {"latency_window": "inf"},
        {"latency_window": 1e300},  # longer than the window of GetLatency
        {"max_connections": 2**31 - 1},  # gRPC's core would end the process
        {"no_such_setting": 1},
    ],
)
def test_invalid_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


def test_an_unknown_name_in_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "doherty.toml"
    file.write_text("lissten = 1\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(ValidationError):
        Settings()


def test_every_setting_is_a_flag_with_its_description() -> None:
    text = " ".join(click.testing.CliRunner().invoke(serve, ["--help"]).output.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert str(field.description) in text


def unwrapped(text: str) -> str:
    return "".join(text.split())  # click also breaks lines after hyphens


def shows_options(text: str, engine: str) -> bool:
    """Whether a help text has the heading of an engine, and each of its options below."""
    if unwrapped(f"Options of the engine {engine}, as") not in unwrapped(text):
        return False
    for option, description in engine_options(engine).items():
        assert unwrapped(f"{option} {description}") in unwrapped(text)
    return True


def test_the_help_lists_the_options_of_the_engines_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vllm.py").write_text("raise ImportError('the help imports no engine\\'s package')")
    text = click.testing.CliRunner().invoke(serve, ["--help"]).output
    assert [name for name in engine_names() if shows_options(text, name)] == ["llamacpp", "synthetic", "vllm"]
    assert "trtllm; `doherty serve --help-engine NAME` shows their options" in text


@pytest.mark.parametrize("engine", engine_names())
def test_the_help_can_show_the_options_of_any_engine(engine: str) -> None:
    shown = click.testing.CliRunner().invoke(serve, ["--help-engine", engine])
    assert shown.exit_code == 0
    assert [name for name in engine_names() if shows_options(shown.output, name)] == [engine]


def test_an_invalid_setting_leads_to_one_sentence_and_exit_code_2() -> None:
    result = click.testing.CliRunner().invoke(serve, ["--temperature", "9"])
    assert result.exit_code == 2
    assert "temperature" in result.output
    assert result.output.count("\n") == 1
