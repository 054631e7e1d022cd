"""`doherty serve --print-config`, and unknown names of settings."""

import re
import tomllib
from pathlib import Path

import click.testing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doherty_service.command import serve
from doherty_service.settings import CLIENT_VARIABLES, CONFIG_VARIABLE, Settings, as_toml, sources, unknown_variables

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "")  # --config sets it, so it must be restored


def invoke(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(serve, arguments)


def test_every_value_is_printed_with_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "doherty.toml"
    file.write_text("latency_window = 60\ndrain_grace = 1\n[engine_option]\nslots = 2\n")
    monkeypatch.setenv("DOHERTY_DRAIN_GRACE", "2")
    monkeypatch.setenv("DOHERTY_TEMPERATURE", "0.5")
    result = invoke("--config", str(file), "--temperature", "0.25", "--print-config")
    assert result.exit_code == 0
    assert f"latency_window = 60.0  # file {file}\n" in result.output
    assert "drain_grace = 2.0  # environment DOHERTY_DRAIN_GRACE\n" in result.output
    assert "temperature = 0.25  # flag --temperature\n" in result.output
    assert 'log_level = "info"  # default\n' in result.output
    assert "# top_p is not set  # default\n" in result.output
    assert f'[engine_option]  # file {file}\nslots = "2"\n' in result.output


def test_the_output_can_be_used_as_a_config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags = (
        "--listen",
        "127.0.0.1:1",
        "-o",
        "a=1",
        "-o",
        "b c=x=y",
        "--insecure",
        "--system-prompt",
        'Say "no"\n\t\\.',
    )
    printed = invoke(*flags, "--print-config").output
    file = tmp_path / "doherty.toml"
    file.write_text(printed)
    again = invoke("--config", str(file), "--print-config")
    assert tomllib.loads(again.output) == tomllib.loads(printed)
    assert tomllib.loads(printed)["engine_option"] == {"a": "1", "b c": "x=y"}
    assert tomllib.loads(printed)["system_prompt"] == 'Say "no"\n\t\\.'
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert Settings().engine_option == {"a": "1", "b c": "x=y"}


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, st.dictionaries(TEXT.filter(bool), TEXT, max_size=3), st.floats(0, 2))
@settings(max_examples=200, deadline=None)  # a busy machine is not an error
def test_any_text_can_be_printed_and_read_back(text: str, options: dict[str, str], temperature: float) -> None:
    written = Settings(system_prompt=text, engine_option=options, temperature=temperature)
    read = tomllib.loads(as_toml(written, sources({})))
    assert (read["system_prompt"], read["engine_option"], read["temperature"]) == (text, options, temperature)


def test_every_setting_is_printed() -> None:
    printed = invoke("--print-config").output
    for name in Settings.model_fields:
        assert re.search(rf"^(# |\[)?{name}\b", printed, re.MULTILINE), name


def test_nothing_is_printed_if_there_is_an_error() -> None:
    result = invoke("--temperature", "9", "--print-config")
    assert result.exit_code == 2
    assert "engine =" not in result.output


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("DOHERTY_LISSTEN", "secret", "DOHERTY_LISSTEN: there is no such setting (did you mean DOHERTY_LISTEN?)."),
        ("DOHERTY_PORT", "50051", "DOHERTY_PORT: there is no such setting"),
        ("doherty_lissten", "secret", "there is no such setting"),
    ],
)
def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str, hint: str) -> None:
    monkeypatch.setenv(name, value)
    result = invoke("--print-config")
    assert result.exit_code == 2
    assert hint in result.output
    assert value not in result.output


def test_a_misspelt_name_in_the_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    file = tmp_path / "doherty.toml"
    file.write_text('lissten = "secret"\n')
    result = invoke("--config", str(file), "--print-config")
    assert result.exit_code == 2
    assert "lissten: there is no such setting (did you mean listen?)." in result.output
    assert "secret" not in result.output


def test_a_missing_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "missing.toml"))
    for arguments in (["--print-config"], ["--engine", "synthetic", "--listen", "0.0.0.0:0"]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "missing.toml" in result.output
        assert "settings file" in result.output


def test_a_misspelt_flag_is_an_error_with_a_hint() -> None:
    result = invoke("--lissten", "secret")
    assert result.exit_code == 2
    assert "--listen" in result.output


def test_variables_of_other_programs_are_ignored() -> None:
    others = {
        **dict.fromkeys(CLIENT_VARIABLES, "x"),
        CONFIG_VARIABLE: "x",
        "DOHERTY_SERVICE_HOST": "10.0.0.1",  # the variables that Kubernetes sets for a Service named doherty ...
        "DOHERTY_SERVICE_PORT": "50051",
        "DOHERTY_SERVICE_PORT_GRPC": "50051",
        "DOHERTY_PORT": "tcp://10.0.0.1:50051",
        "DOHERTY_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "DOHERTY_PORT_50051_TCP_ADDR": "10.0.0.1",
        "DOHERTY_PORT_50051_TCP_PORT": "50051",
        "DOHERTY_METRICS_PORT_9464_TCP_PROTO": "tcp",  # ... and for one named doherty-metrics
        "DOHERTY_METRICS_SERVICE_PORT": "9464",
        "PATH": "x",
    }
    assert unknown_variables(others, Settings.model_fields) == []
    assert unknown_variables({"DOHERTY_LISSTEN": "x", "DOHERTY_METRICS_PORT": "1"}, Settings.model_fields) == [
        "DOHERTY_LISSTEN",
        "DOHERTY_METRICS_PORT",
    ]


def test_the_variables_of_the_client_are_allowed() -> None:
    named: set[str] = set()
    for source in (ROOT / "client" / "doherty").rglob("*.py"):
        named |= set(re.findall(r"\bDOHERTY_[A-Z][A-Z_]*", source.read_text()))
    assert named
    assert named <= CLIENT_VARIABLES
    assert not {name.lower().removeprefix("doherty_") for name in CLIENT_VARIABLES} & Settings.model_fields.keys()
