"""Compares docs/operations.md, the dashboard and the alerts with the code and a running server."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # a dependency of huggingface-hub; its types are not worth another dependency

from doherty.v1 import generation_service_pb2, latency_service_pb2
from doherty_service.settings import Settings
from support.metrics import LISTEN, scrape
from support.operations import (
    PAGE,
    ROOT,
    events_in_code,
    exposed_name,
    metric_rows,
    metrics,
    reasons_in_code,
    reasons_in_contract,
    setting_rows,
)
from support.server import start_server

TEXT = PAGE.read_text()
DASHBOARD = ROOT / "deploy" / "grafana" / "doherty.json"
RULES = ROOT / "deploy" / "prometheus" / "doherty.rules.yml"
SCRAPING = ROOT / "deploy" / "prometheus" / "prometheus.yml"


def rows(begins: str) -> list[str]:
    """Returns the rows of tables whose first cell begins with this text."""
    return [line for line in TEXT.splitlines() if line.startswith(f"| `{begins}")]


def test_every_setting_has_the_correct_row() -> None:
    assert rows("--") == list(setting_rows()), "print the rows with: python tests/support/operations.py"


def test_every_metric_has_the_correct_row() -> None:
    assert rows("doherty_") == list(metric_rows()), "print the rows with: python tests/support/operations.py"


def test_every_reason_is_in_the_contract_and_explained() -> None:
    explained = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", TEXT, re.MULTILINE))
    assert explained == reasons_in_contract()
    assert reasons_in_code() == set(reasons_in_contract())


def test_every_event_of_the_log_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z_]+)` \| (?:debug|info|warning|error) \|", TEXT, re.MULTILINE)
    assert sorted(explained) == sorted(events_in_code())


def test_the_example_of_a_config_file_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert examples
    for example in examples:
        file = tmp_path / "doherty.toml"
        file.write_text(example)
        monkeypatch.setenv("DOHERTY_CONFIG", str(file))
        assert Settings().model_dump().items() >= {"drain_delay": 5.0, "listen": "127.0.0.1:50051"}.items()
        assert tomllib.loads(example)


def test_the_methods_that_the_page_calls_exist() -> None:
    files = (generation_service_pb2.DESCRIPTOR, latency_service_pb2.DESCRIPTOR)
    known = {
        f"{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    called = set(re.findall(r"\bdoherty\.v1\.\w+/\w+", TEXT))
    assert called
    assert called <= known


def test_the_yaml_of_the_page_is_valid() -> None:
    for example in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL):
        assert yaml.safe_load(example)


def test_the_dashboard_and_the_alerts_name_metrics_that_a_live_server_exports() -> None:
    with start_server("--engine", "synthetic", *LISTEN) as server:
        live = {exposed_name(family) for family in scrape(server).families}
    ours = {name for name in live if name.startswith("doherty_")}
    assert ours == {exposed_name(metric) for metric in metrics()}
    shown = named(json.dumps(expressions(json.loads(DASHBOARD.read_text()))))
    alerted = named(RULES.read_text())
    assert shown | alerted <= live
    assert shown == ours, "the dashboard shows every metric"


def named(text: str) -> set[str]:
    """Returns the metrics that queries use."""
    names = re.findall(r"\b(?:doherty|process)_[a-z_]+\b", text)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names if name.startswith("doherty_")}


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """Returns the queries of a dashboard."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_is_complete() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "instance"}
    for panel in panels:
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    thresholds = [panel["title"] for panel in panels if "0.4" in json.dumps(panel.get("fieldConfig", {}))]
    assert "Time to first token (TTFT)" in thresholds


def test_every_alert_has_its_section() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    [alerts] = re.findall(r"^## Alerts\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    sections = dict(re.findall(r"^### (\w+)\n\n(\S.*?)\n$", alerts, re.DOTALL | re.MULTILINE))
    assert list(sections) == [rule["alert"] for rule in group["rules"]]


def test_the_alerts_are_complete() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        assert rule["alert"].startswith("Doherty")
        assert rule["expr"].strip()
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert yaml.safe_load(SCRAPING.read_text())["rule_files"] == [RULES.name]
