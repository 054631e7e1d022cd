"""deploy/helm, checked by Helm and by Kubernetes' schemas, and the servers that it starts."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # as in tests/service/test_operations_doc.py

from doherty_service.lifecycle._supervisor import STOP_SECONDS
from doherty_service.settings import Settings
from foreign.clients import HERE as FOREIGN
from support.certificates import Authority
from support.command import run_doherty
from support.hugging_face import write_llama3
from support.image import ROOT
from support.operations import exposed_name, metrics
from support.programs import program
from support.security import add_key, connect_with
from support.server import start_server
from support.vllm import FAKE_PATH

HELM = ROOT / "deploy" / "helm"
CHART = HELM / "doherty"
ENGINES = ("cpu", "vllm", "trtllm")
EXTENSIONS = ("gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")

Values = dict[str, Any]
Manifest = dict[str, Any]

EVERYTHING: Values = {
    "model": "NousResearch/Meta-Llama-3-8B-Instruct",
    "engineOptions": {"slots": 8},
    "settings": {
        "max_queue_wait": 5,
        "max_queued_bytes": 16777216,
        "share_prefix_cache": True,
        "listen_when_ready": True,
    },
    "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
    "imagePullSecrets": [{"name": "registry"}],
    "tls": {"secret": "certificate", "serverName": "doherty.example.com"},
    "keys": {"secret": "keys"},
    "nodeSelector": {"disk": "fast"},
    "affinity": {"nodeAffinity": {}},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "priorityClassName": "serving",
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "models"},
    "cache": {"create": True, "storageClass": "shared"},
    "prepare": {"enabled": True},
    "service": {"annotations": {"c": "d"}},
    "networkPolicy": {"from": [{"podSelector": {}}]},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "canary": {"enabled": True, "weight": 5, "image": {"tag": "next"}, "engineOptions": {"slots": 16}},
    "gateway": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["doherty.example.com"]},
}


def values_of(engine: str, values: Values, folder: Path) -> Path:
    """Writes a file of values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump({"engine": engine, **values}))
    return file


def helm(*arguments: str | Path) -> str:
    """Runs Helm and returns its output."""
    done = subprocess.run([program("helm"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def render(engine: str, values: Values, folder: Path) -> list[Manifest]:
    """Returns the manifests of a release."""
    rendered = helm("template", "test", CHART, "--values", values_of(engine, values, folder))
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


def manifest_of(manifests: list[Manifest], kind: str, name: str = "test-doherty") -> Manifest:
    """Returns the manifest of a kind and name."""
    [manifest] = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return manifest


def container(manifests: list[Manifest]) -> Manifest:
    """Returns the container of the server."""
    [only] = manifest_of(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    server: Manifest = only
    return server


def wrong_extensions(manifests: list[Manifest]) -> list[str]:
    """Returns the errors that the schemas of Kubernetes' extensions find in their manifests."""
    command = ["node", str(FOREIGN / "node" / "crds.mjs")]
    done = subprocess.run(command, input=json.dumps(manifests), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_an_invalid_or_misspelt_field_of_an_extension_is_found(tmp_path: Path) -> None:
    scaled = manifest_of(render("cpu", {"autoscaling": {"kind": "keda"}}, tmp_path), "ScaledObject")
    scaled["spec"]["minReplicaCount"] = "two"
    scaled["spec"]["triggers"][0]["treshold"] = "1"
    assert wrong_extensions([scaled]) == [
        "ScaledObject test-doherty: data/spec/minReplicaCount must be integer",
        "ScaledObject test-doherty: unknown field ScaledObject.spec.triggers.treshold",
    ]


@pytest.mark.parametrize(
    ("engine", "scaling"),
    [*((engine, "none") for engine in ENGINES), ("cpu", "hpa"), ("vllm", "keda"), ("trtllm", "hpa")],
)
def test_kubernetes_accepts_every_manifest(engine: str, scaling: str, tmp_path: Path) -> None:
    everything = {} if scaling == "none" else EVERYTHING
    values = {**everything, "autoscaling": {"kind": scaling}}
    helm("lint", "--strict", CHART, "--values", values_of(engine, values, tmp_path))
    manifests = render(engine, values, tmp_path)
    extensions = [each for each in manifests if each["apiVersion"].startswith(EXTENSIONS)]
    kept = [each for each in manifests if each not in extensions]
    file = tmp_path / "kept.yaml"
    file.write_text(yaml.safe_dump_all(kept))
    command = [program("kubernetes-validate"), "--strict", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, (done.stdout + done.stderr).count(" passed ")) == (0, len(kept)), done.stdout + done.stderr
    assert wrong_extensions(extensions) == []
    if scaling != "none":
        kinds = {each["kind"] for each in manifests}
        scalers = {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}
        expected_kinds = {
            "Deployment",
            "GRPCRoute",
            "Job",
            "PersistentVolumeClaim",
            "PodMonitor",
            "PrometheusRule",
            "Service",
        }
        assert kinds == expected_kinds | {"NetworkPolicy", "PodDisruptionBudget", scalers[scaling]}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"engine": "other"}, "at '/engine': value must be one of 'cpu', 'vllm', 'trtllm'"),
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"tls": None}, "missing property 'tls'"),
        ({"settings": {"listen": "0.0.0.0:1"}}, "at '/settings': additional properties 'listen' not allowed"),
        ({"settings": {"max_queue_wait": "5s"}}, "at '/settings/max_queue_wait': got string, want number"),
        ({"env": [{"value": "a"}]}, "at '/env/0': missing property 'name'"),
        ({"tls": {"secret": "a"}}, "tls.secret needs tls.serverName"),
        ({"tls": {"serverName": "a"}}, "tls.serverName needs tls.secret"),
        ({"gateway": {"enabled": True}}, "gateway.enabled needs gateway.parentRefs"),
        ({"autoscaling": {"kind": "hpa", "minReplicas": 9}}, "autoscaling.minReplicas is above"),
        ({"autoscaling": {"kind": "keda", "prometheus": ""}}, "autoscaling.kind=keda needs autoscaling.prometheus"),
        ({"rollingUpdate": {"maxSurge": "0%"}}, "rollingUpdate.maxSurge and rollingUpdate.maxUnavailable must not"),
        ({"cache": {"create": True, "existingClaim": "a"}}, "cache.create and cache.existingClaim exclude"),
        ({"prepare": {"enabled": True}, "model": "a/b"}, "prepare.enabled needs a cache that pods share"),
        ({"prepare": {"enabled": True}, "cache": {"create": True}}, "prepare.enabled needs model"),
        ({"engineOptions": {"model": "a/b"}}, "engineOptions.model is not an option"),
        ({"resources": {"limits": {"nvidia.com/gpu": 2}}}, "resources.limits has nvidia.com/gpu: use gpus"),
        ({"canary": {"enabled": True}}, "canary.enabled needs what is different"),
    ],
)
def test_invalid_values_are_refused_with_a_sentence(values: Values, sentence: str, tmp_path: Path) -> None:
    file = values_of("cpu", values, tmp_path)
    done = subprocess.run(
        [program("helm"), "template", CHART, "--values", file], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert sentence in done.stderr


def test_the_chart_accepts_the_settings_of_the_server() -> None:
    def shortened(setting: dict[str, Any]) -> dict[str, Any]:
        kind = next(each for each in setting.get("anyOf", [setting]) if each.get("type") != "null")
        kept = ("enum",) if "enum" in kind else ("type", "minimum", "exclusiveMinimum", "maximum")
        return {name: kind[name] for name in kept if name in kind}

    schema = json.loads((CHART / "values.schema.json").read_text())
    expected = {name: shortened(each) for name, each in Settings.model_json_schema()["properties"].items()}
    expected |= {key: {"$ref": "#/definitions/seconds"} for key in ("drain_delay", "drain_grace")}
    set_by_chart = {"engine", "model", "engine_option", "listen", "metrics_listen", "insecure", "health"}
    set_by_chart |= {"tls_cert", "tls_key", "keys_file"}
    assert schema["properties"]["settings"]["properties"] == {
        name: each for name, each in expected.items() if name not in set_by_chart
    }


def test_the_installations_in_the_document_can_be_rendered() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^helm (?:install|upgrade) (doherty) deploy/helm/doherty(.*)$", page, re.MULTILINE)
    assert len(commands) == 4
    for name, flags in commands:
        assert helm("template", name, CHART, *shlex.split(flags.replace("--reuse-values", "")))


@pytest.mark.parametrize("engine", ENGINES)
def test_pods_have_what_their_engine_needs_and_no_privileges(engine: str, tmp_path: Path) -> None:
    manifests = render(engine, EVERYTHING, tmp_path)
    pod, server = manifest_of(manifests, "Deployment")["spec"]["template"]["spec"], container(manifests)
    is_gpu = engine != "cpu"
    assert server["image"] == f"doherty:{engine}"
    assert server["resources"].get("limits", {}).get("nvidia.com/gpu") == (1 if is_gpu else None)
    assert ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]) is is_gpu
    shared = {volume["name"]: volume.get("emptyDir") for volume in pod["volumes"]}.get("shm")
    assert shared == ({"medium": "Memory", "sizeLimit": "16Gi"} if is_gpu else None)
    assert server["securityContext"]["readOnlyRootFilesystem"] is not is_gpu
    assert (pod["securityContext"]["runAsNonRoot"], server["securityContext"]["allowPrivilegeEscalation"]) == (
        True,
        False,
    )
    assert server["livenessProbe"]["tcpSocket"]["port"] == 9464  # the other port is closed while the engine restarts
    drain = sum(int(flag.partition("=")[2]) for flag in server["args"] if flag.startswith("--drain"))
    assert (
        pod["terminationGracePeriodSeconds"] > server["lifecycle"]["preStop"]["sleep"]["seconds"] + drain + STOP_SECONDS
    )


def test_a_canary_gets_its_share_of_calls(tmp_path: Path) -> None:
    manifests = render("vllm", EVERYTHING, tmp_path)
    [rule] = manifest_of(manifests, "GRPCRoute")["spec"]["rules"]
    weights = {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}
    assert weights == {"test-doherty-stable": 95, "test-doherty-canary": 5}
    for track in ("stable", "canary"):
        name = "test-doherty" if track == "stable" else "test-doherty-canary"
        labels = manifest_of(manifests, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert manifest_of(manifests, "Service", f"test-doherty-{track}")["spec"]["selector"].items() <= labels.items()
    [canary] = manifest_of(manifests, "Deployment", "test-doherty-canary")["spec"]["template"]["spec"]["containers"]
    assert canary["image"] == "doherty:next"
    assert "--engine-option=slots=16" in canary["args"]


def test_the_alerts_are_those_of_prometheus(tmp_path: Path) -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "doherty.rules.yml").read_text())
    manifests = render("cpu", {"prometheusRule": {"enabled": True}}, tmp_path)
    assert manifest_of(manifests, "PrometheusRule")["spec"] == rules


def test_scaling_uses_metrics_that_exist(tmp_path: Path) -> None:
    scaled = manifest_of(render("cpu", {"autoscaling": {"kind": "keda"}}, tmp_path), "ScaledObject")
    [adapted] = yaml.safe_load((HELM / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    known = {exposed_name(metric) for metric in metrics()}
    for query in (scaled["spec"]["triggers"][0]["metadata"]["query"], adapted["metricsQuery"]):
        named = set(re.findall(r"doherty_[a-z_]+", query))
        assert named == {"doherty_running_requests", "doherty_queued_requests", "doherty_slots"} <= known
    [metric] = manifest_of(render("cpu", {"autoscaling": {"kind": "hpa"}}, tmp_path), "HorizontalPodAutoscaler")[
        "spec"
    ]["metrics"]
    assert metric["pods"]["metric"]["name"] == adapted["name"]["as"]


def arguments(server: Manifest, folder: Path) -> list[str]:
    """Returns the arguments of a container with this machine's addresses and files."""
    command, *flags = server["args"]
    assert command == "serve"
    places = {"0.0.0.0:50051": "127.0.0.1:0", "0.0.0.0:9464": "127.0.0.1:0"}
    places |= {"/secrets/tls/tls": str(folder / "server"), "/secrets/tls": str(folder), "/secrets/keys": str(folder)}
    for old, new in places.items():
        flags = [flag.replace(old, new) for flag in flags]
    return [flag.replace("server.crt", "server.pem") for flag in flags]


@pytest.mark.model
def test_the_server_starts_with_the_arguments_of_its_pod(tmp_path: Path) -> None:
    server = container(render("cpu", {}, tmp_path))
    with start_server(*arguments(server, tmp_path)) as running:
        port = running.target.rpartition(":")[2]
        assert server["readinessProbe"]["grpc"] == {"port": 50051}
        assert run_doherty("health", "--target", f"localhost:{port}").returncode == 0


def test_a_pod_with_a_certificate_and_keys_passes_its_probe(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew("server")
    key = add_key(tmp_path / "keys.json", "alice")
    model = write_llama3(tmp_path / "model").path
    values = {**EVERYTHING, "model": str(model), "tls": {"secret": "certificate", "serverName": "localhost"}}
    server = container(render("vllm", values, tmp_path))
    with start_server(*arguments(server, tmp_path), PYTHONPATH=FAKE_PATH) as running:
        port = running.target.rpartition(":")[2]
        _, *probe = server["readinessProbe"]["exec"]["command"]
        places = {"/secrets/tls/ca.crt": str(authority.roots_file), ":50051": f":{port}"}
        for old, new in places.items():
            assert any(old in argument for argument in probe)
            probe = [argument.replace(old, new) for argument in probe]
        assert run_doherty(*probe).returncode == 0
        with connect_with(f"localhost:{port}", key, authority.roots) as caller:
            assert caller.generate(prompt="Hi").text
