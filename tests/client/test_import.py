"""The cost of importing the package."""

import subprocess
import sys

MEASURE = "import time; begun = time.process_time(); {}; print(time.process_time() - begun)"


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def _modules(code: str) -> set[str]:
    return set(_python(f"{code}\nimport sys; print(*sys.modules)").split())


def test_importing_the_package_loads_none_of_its_modules() -> None:
    loaded = _modules("import doherty")
    assert {name for name in loaded if name.startswith("doherty.")} == {"doherty._version"}
    assert not {"grpc", "google.protobuf"} & loaded


def test_importing_the_contract_does_not_load_the_sdk() -> None:
    loaded = _modules("import doherty.v1.generation_service_pb2_grpc")
    assert "grpc" in loaded
    assert not {name for name in loaded if name.startswith("doherty._") and name != "doherty._version"}


def test_the_clients_import_only_their_own_dependencies() -> None:
    loaded = _modules("from doherty import *")
    assert {"doherty._sync._client", "doherty._aio._client"} <= loaded
    foreign = {"pydantic", "typer", "click", "rich", "doherty_service", "doherty_engine", "grpc_health.v1"}
    assert not foreign & loaded


def test_the_fake_server_needs_no_other_dependencies_than_the_clients() -> None:
    loaded = _modules("import doherty.testing")
    assert "doherty.testing._server" in loaded
    assert not {"pytest", "pydantic", "grpc_health.v1", "doherty_service"} & loaded


def test_importing_the_clients_costs_less_than_three_times_as_much_as_importing_grpc() -> None:
    costs: dict[str, list[float]] = {"import grpc": [], "from doherty import AsyncClient, Client": []}
    for _ in range(7):
        for statement, seconds in costs.items():
            seconds.append(float(_python(MEASURE.format(statement))))
    grpc, doherty = (min(seconds) for seconds in costs.values())
    assert doherty < 3 * grpc  # 1.7 to 2.5, depending on what else runs on the machine
