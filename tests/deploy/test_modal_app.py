"""What deploy/modal_app.py requests from Modal, by Modal's own package, with a strict fake of its cloud."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.modal_account import APP, ROOT, deploy
from support.modal_cloud import Cloud
from support.wheel import build


def test_the_app_can_be_built_without_a_network_and_an_account() -> None:
    program = f"""
import runpy, socket, sys
def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise AssertionError(event)
sys.addaudithook(refuse)
runpy.run_path({str(APP)!r})
"""
    environment = {"PATH": os.environ["PATH"], "MODAL_CONFIG_PATH": "/dev/null"}
    done = subprocess.run(
        (sys.executable, "-W", "error", "-c", program), capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_app_is_deployed_completely(cloud: Cloud) -> None:
    deploy(cloud)
    assert set(cloud.functions) == {"Server", "Tunnel.*"}
    for function in cloud.functions.values():
        assert (function.resources.gpu_config.gpu_type, function.resources.gpu_config.count) == ("H100!", 1)
        assert function.autoscaler_settings.scaledown_window == 600
        assert function.startup_timeout_secs == 3600
        mounts = {
            (cloud.volumes[mount.volume_id], mount.mount_path, mount.read_only) for mount in function.volume_mounts
        }
        assert mounts == {("doherty-trtllm", "/vol", False), ("doherty-keys", "/keys", True)}
        [own] = (cloud.secrets[secret] for secret in function.secret_ids)
        assert dict(own.env_dict) == {"MODE": "fast", "GPUS": "1", "MAX_CONTAINERS": "2", "REGION": ""}
        assert list(function.scheduler_placement.regions) == []
    server, tunnel = cloud.functions["Server"], cloud.functions["Tunnel.*"]
    assert server.is_server
    assert (server.http_config.port, server.http_config.h2_enabled, server.http_config.unauthenticated) == (
        50051,
        True,
        True,
    )
    assert (server.http_config.startup_timeout, server.http_config.exit_grace_period) == (3600, 30)
    assert (server.autoscaler_settings.target_concurrency_float, server.max_concurrent_inputs) == (1, 0)
    assert server.autoscaler_settings.max_containers == 2
    assert list(server.http_config.proxy_regions) == ["us-east"]
    assert (tunnel.timeout_secs, tunnel.autoscaler_settings.max_containers, tunnel.max_concurrent_inputs) == (600, 1, 1)
    [mode] = tunnel.class_parameter_info.schema
    assert (mode.name, mode.string_default) == ("mode", "fast")
    assert list(tunnel.method_definitions) == ["boot"]
    assert tunnel.app_name == "doherty"


def test_the_app_uses_environment_variables(cloud: Cloud) -> None:
    deploy(cloud, MODE="slow", GPUS="2", MAX_CONTAINERS="5", REGION="eu-west")
    server, tunnel = cloud.functions["Server"], cloud.functions["Tunnel.*"]
    assert {deployed.resources.gpu_config.count for deployed in (server, tunnel)} == {2}
    assert (server.autoscaler_settings.target_concurrency_float, tunnel.max_concurrent_inputs) == (32, 32)
    assert tunnel.class_parameter_info.schema[0].string_default == "slow"
    assert server.autoscaler_settings.max_containers == 5
    assert list(server.http_config.proxy_regions) == ["eu-west"]
    for function in (server, tunnel):
        assert list(function.scheduler_placement.regions) == ["eu-west"]
    own = {"MODE": "slow", "GPUS": "2", "MAX_CONTAINERS": "5", "REGION": "eu-west"}
    assert own in [dict(secret.env_dict) for secret in cloud.secrets.values()]


def test_the_image_is_nvidias_with_the_server_added(cloud: Cloud, tmp_path: Path) -> None:
    deploy(cloud)
    image = cloud.images[cloud.functions["Server"].image_id]
    layers = [list(image.dockerfile_commands)]
    while image.base_images:
        image = cloud.images[image.base_images[0].image_id]
        layers.append(list(image.dockerfile_commands))
    lines = [line for layer in reversed(layers) for line in layer if line != "FROM base"]
    copies = lines.count("COPY . /")
    assert lines == [
        "FROM nvcr.io/nvidia/tensorrt-llm/release:1.2.1",
        "ENTRYPOINT []",
        *["COPY . /"] * copies,
        "RUN env PIP_CONSTRAINT=/src/constraints.txt python3 -m pip wheel --no-deps --wheel-dir /wheel /src",
        "RUN bash /src/deploy/install_beside.sh /wheel/*.whl /src/constraints.txt",
        "ENV HOME=/vol",
        "ENV HF_HOME=/vol/huggingface",
        "ENV XDG_CACHE_HOME=/vol/cache",
    ]
    dockerfile = (ROOT / "Dockerfile").read_text()
    (version,) = re.findall(r"^ARG TENSORRT_LLM=(\S+)$", dockerfile, re.MULTILINE)
    assert f"{lines[0]} AS trtllm".replace(version, "${TENSORRT_LLM}") in dockerfile
    sent = {name for name in cloud.files if name.startswith("/src/")}
    assert "/src/deploy/install_beside.sh" in sent
    for name in sent:
        copy = tmp_path / name[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name.removeprefix("/src/")).read_bytes())
    assert build(tmp_path / "wheel", tmp_path / "src").name.startswith("doherty-")
