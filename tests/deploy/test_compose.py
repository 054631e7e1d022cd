"""deploy/compose.yaml and the files that it mounts, as far as they can be checked without a container engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # a dependency of huggingface-hub; its types are not worth another dependency

from doherty_service.settings import Settings, unknown_variables
from support.image import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def sources(service: str) -> dict[str, str]:
    """Returns the mounted files of a service by their paths in the container."""
    return {
        target: source for source, target, *_ in (volume.split(":") for volume in SERVICES[service].get("volumes", ()))
    }


def test_ports_are_published_only_on_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service["ports"]]
    assert published == ["127.0.0.1:50051:50051", "127.0.0.1:9090:9090", "127.0.0.1:3000:3000"]


def test_the_server_has_valid_settings_and_no_privileges() -> None:
    server = SERVICES["doherty"]
    environment = server["environment"]
    assert unknown_variables(environment, Settings.model_fields) == []
    settings = Settings(**{name.removeprefix("DOHERTY_").lower(): value for name, value in environment.items()})
    assert settings.insecure
    assert (server["read_only"], server["tmpfs"], server["cap_drop"]) == (True, ["/tmp"], ["ALL"])  # noqa: S108 - the container's own
    grace = settings.drain_delay + settings.drain_grace + 5
    assert int(server["stop_grace_period"].removesuffix("s")) > grace


def test_the_server_is_a_target_of_the_dockerfile() -> None:
    build = SERVICES["doherty"]["build"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (DEPLOY / build["context"] / "Dockerfile").read_text(), re.MULTILINE)
    assert build["target"] in targets


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_other_images_are_pinned(service: str) -> None:
    assert re.fullmatch(r"docker\.io/\w+/\w+:v?\d+\.\d+\.\d+", SERVICES[service]["image"])


def test_mounted_files_exist() -> None:
    mounted = [Path(source) for name in SERVICES for source in sources(name).values()]
    files = [path for path in mounted if len(path.parts) > 1]
    assert files
    assert all((DEPLOY / path).exists() for path in files)
    assert {str(path) for path in mounted} - {str(path) for path in files} == set(COMPOSE["volumes"])


def test_prometheus_scrapes_the_server_of_this_file() -> None:
    mounted = sources("prometheus")
    here = yaml.safe_load((DEPLOY / mounted["/etc/prometheus/prometheus.yml"]).read_text())
    always = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    [job] = here["scrape_configs"]
    [group] = job["static_configs"]
    port = SERVICES["doherty"]["environment"]["DOHERTY_METRICS_LISTEN"].rpartition(":")[2]
    assert group.pop("targets") == [f"doherty:{port}"]
    del always["scrape_configs"][0]["static_configs"][0]["targets"]
    assert here == always
    assert [f"/etc/prometheus/{file}" for file in here["rule_files"]] == [
        path for path in mounted if path.endswith(".rules.yml")
    ]


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    mounted = sources("grafana")
    provisioning = DEPLOY / mounted["/etc/grafana/provisioning"]
    [dashboards] = yaml.safe_load((provisioning / "dashboards" / "doherty.yaml").read_text())["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounted[home] == "./grafana/doherty.json"
    assert str(Path(home).parent) == dashboards["options"]["path"]
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
