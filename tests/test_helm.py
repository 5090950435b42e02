"""The Helm chart, rendered by Helm's own code: valid to Kubernetes' schemas, and all that it names exists in k2think."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.deployment import accept_command, known_variables
from k2think.gateway.operations import router
from k2think.schemas.settings import GatewaySettings
from k2think.workers.ending import HANG_S

helm = pytest.importorskip("helm_python", reason="there is no build of Helm for this platform")
import kubernetes_validate  # noqa: E402

CHART = Path(__file__).parents[1] / "docker" / "helm" / "k2think"
KUBERNETES = ("1.27.0", "1.37.0")
"""The oldest version that the chart says it runs on, and a new one."""
ROLES = ("planner", "generator-default", "verifier", "safety", "intake", "sweeper", "gateway")
GIVEN = {"secrets": {"existing": "given"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "secret": GIVEN,
    "values": {
        "secrets": {"values": {"K2THINK_DATABASE_URL": "postgresql://u:p@h/k", "K2THINK_BROKER_URL": "redis://h"}},
        "image": {"tag": "1.2.3", "pullSecrets": [{"name": "registry"}]},
        "gateway": {
            "replicas": 3,
            "files": {"accessMode": "ReadWriteMany", "storageClass": "nfs"},
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "hosts": [{"host": "k2think.example.org"}],
                "tls": [{"secretName": "k2think-tls", "hosts": ["k2think.example.org"]}],
            },
        },
    },
    "stores": {
        "postgresql": {"enabled": True, "password": "p w/d+"},
        "redis": {"enabled": True, "password": "r"},
        "intake": {"enabled": False},
    },
    "pools": {
        **GIVEN,
        "redis": {"enabled": True, "aclSecret": "users"},
        "keda": {"serverAddress": "http://prometheus:9090", "authentication": "prometheus"},
        "defaults": {"autoscaling": {"enabled": True}, "secretNames": ["worker"], "tolerations": [{"key": "gpu"}]},
        "generators": {
            "default": {"autoscaling": {"enabled": False}},
            "fast": {"backend": "fast", "settings": {"K2THINK_GENERATOR__CONCURRENCY": 200}},
        },
        "planner": {
            "volumes": [{"name": "ca", "secret": {"secretName": "redis-ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/redis-ca", "readOnly": True}],
        },
    },
}


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all manifests; several in one file are told apart by Helm's own rules."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name="demo", namespace="here")
    files = [text for name, text in texts.items() if not name.endswith("NOTES.txt")]
    return [document for text in files for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    return {name: render(values) for name, values in VARIANTS.items()}


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and pod specification of everything that runs pods."""
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings(name)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


# ---- As a chart


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_nothing_to_say_but_that_an_icon_is_missing(variant: str) -> None:
    report = helm.lint(CHART, VARIANTS[variant], strict=True, kube_version=f"v{KUBERNETES[0]}")
    assert not report["errors"]
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(("variant", "version"), list(zip(VARIANTS, 2 * KUBERNETES, strict=True)))
def test_kubernetes_takes_every_manifest(rendered: dict[str, Any], variant: str, version: str) -> None:
    checked = 0
    for manifest in rendered[variant]:
        if manifest["kind"] != "ScaledObject":  # KEDA's own
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked > 15


def test_a_manifest_with_a_field_that_does_not_exist_is_noticed(rendered: dict[str, Any]) -> None:
    deployment = of_kind(rendered["secret"], "Deployment")["demo-planner"]
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[0], strict=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "no database: set secrets.existing"),
        ({"postgresql": {"enabled": True, "password": "p"}}, "no Redis: set secrets.existing"),
        ({"postgresql": {"enabled": True}}, "postgresql.password: choose one"),
        ({**GIVEN, "gateway": {"replicas": 2}}, "gateways share their files"),
        ({**GIVEN, "defaults": {"autoscaling": {"enabled": True}}}, "keda.serverAddress"),
        ({**GIVEN, "replicas": 2}, "replicas"),
        ({**GIVEN, "planner": {"replica": 2}}, "replica"),
        ({**GIVEN, "settings": {"LOG_FORMAT": "json"}}, "LOG_FORMAT"),
        ({**GIVEN, "generators": {"Fast_": {}}}, "Fast_"),
        ({**GIVEN, "defaults": {"autoscaling": {"load": 0}}}, "load"),
    ],
)
def test_wrong_values_are_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm.HelmError) as caught:
        render(values)
    assert words in str(caught.value)


def test_the_default_values_are_those_that_the_schema_knows() -> None:
    with helm.Chart.load(CHART) as chart:
        known, given = chart.schema["properties"], chart.values
        assert set(known) == set(given) | {"global"}
        assert set(chart.schema["definitions"]["deployment"]["properties"]) == set(given["defaults"])
        assert chart.metadata["appVersion"] == __import__("k2think").__version__


# ---- What it names


def our_containers(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, spec in pods(manifests):
        for container in spec["containers"]:
            if container["image"].startswith("k2think:"):
                yield name, container


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_command_exists(rendered: dict[str, Any], variant: str) -> None:
    commands = {name: container["args"] for name, container in our_containers(rendered[variant])}
    for words in commands.values():
        accept_command(words)
    roles = {"demo-" + role for role in ROLES if role != "intake" or variant != "stores"}
    assert roles <= set(commands)
    assert commands["demo-generator-default"] == ["worker", "generator"]
    if variant == "pools":
        assert commands["demo-generator-fast"] == ["worker", "generator", "--backend", "fast"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variable_exists(rendered: dict[str, Any], variant: str) -> None:
    named = {name for text in strings(rendered[variant]) for name in re.findall(r"\bK2THINK_[A-Z0-9_]+", text)}
    assert len(named) > 5
    assert named <= known_variables()


def test_what_comments_and_notes_name_exists() -> None:
    files = [CHART / "values.yaml", *(CHART / "templates").iterdir()]
    text = "\n".join(file.read_text() for file in files)
    full = {name for name in re.findall(r"\bK2THINK_[A-Z0-9_]+", text) if not name.endswith("_")}
    assert full <= known_variables()
    for command in re.findall(r"(?:-- |`)k2think ([a-z][^`\n]*)", text):
        accept_command(command.replace('"', "").split(" ", 2 if command.startswith(("keys", "db", "redis")) else 1))


def test_the_metrics_that_it_scales_by_exist(rendered: dict[str, Any]) -> None:
    from k2think.gateway.operations import metrics
    from k2think.store.gauges import Gauges

    gauges = Gauges(queues={}, jobs={}, dead_letter_steps=0, batches={}, batch_lines=0, deliveries={})
    text = metrics.render(metrics.Reading([], 0.0, gauges, None, 1, {"fast": ("fast",)})).decode()
    scaled = of_kind(rendered["pools"], "ScaledObject")
    assert set(scaled) == {f"demo-{role}" for role in ("planner", "verifier", "safety", "generator-fast")}
    deployments = of_kind(rendered["pools"], "Deployment")
    for name, one in scaled.items():
        (trigger,) = one["spec"]["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "Value")
        series = re.fullmatch(r"clamp_max\(max\((\w+\{\w+=\"[\w-]+\"\})\), 10\)", trigger["metadata"]["query"])
        assert series is not None
        assert f"\n{series[1]} " in text, series[1]
        assert one["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in deployments[name]["spec"], "Helm and KEDA would take turns"
    assert deployments["demo-generator-default"]["spec"]["replicas"] == 2
    assert deployments["demo-sweeper"]["spec"]["replicas"] == 2


# ---- How it runs


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_runs_without_rights(rendered: dict[str, Any], variant: str) -> None:
    for name, spec in pods(rendered[variant]):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


def test_every_deployment_has_probes_a_budget_and_time_to_drain(rendered: dict[str, Any]) -> None:
    manifests = rendered["secret"]
    settings = of_kind(manifests, "ConfigMap")["demo"]["data"]
    budgets = of_kind(manifests, "PodDisruptionBudget")
    deployments = of_kind(manifests, "Deployment")
    assert set(deployments) == set(budgets) == {f"demo-{role}" for role in ROLES}
    for name, one in deployments.items():
        labels = one["spec"]["template"]["metadata"]["labels"].items()
        for chosen in (one["spec"]["selector"], budgets[name]["spec"]["selector"]):
            assert chosen["matchLabels"].items() <= labels
        spec = one["spec"]["template"]["spec"]
        assert spec["terminationGracePeriodSeconds"] > float(settings["K2THINK_SHUTDOWN_S"]) + HANG_S
        (container,) = spec["containers"]
        assert {"startupProbe", "livenessProbe"} <= set(container)
        if name == "demo-gateway":
            paths = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
            assert paths <= {getattr(route, "path", None) for route in router.routes}
            assert container["ports"][0]["containerPort"] == int(settings["K2THINK_GATEWAY__PORT"])
        else:
            file = settings["K2THINK_ALIVE_FILE"]
            assert file in container["startupProbe"]["exec"]["command"]
            assert file in container["livenessProbe"]["exec"]["command"][-1]
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", settings["K2THINK_DATA_DIR"]} <= mounted
    assert GatewaySettings.model_fields["port"].default == 8400
    assert settings["K2THINK_GATEWAY__TRUSTED_PROXIES"] == "*", "the login's cookie is Secure behind an ingress, too"
    service = of_kind(manifests, "Service")["demo"]["spec"]
    gateway = deployments["demo-gateway"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= gateway.items()


def test_the_liveness_probe_tells_old_from_new(tmp_path: Path, rendered: dict[str, Any]) -> None:
    import os
    import subprocess

    planner = of_kind(rendered["secret"], "Deployment")["demo-planner"]["spec"]["template"]["spec"]["containers"][0]
    file = tmp_path / "alive"
    command = [word.replace("/tmp/alive", str(file)) for word in planner["livenessProbe"]["exec"]["command"]]
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0
    file.touch()
    assert subprocess.run(command, check=False).returncode == 0
    os.utime(file, (0, 0))
    assert subprocess.run(command, check=False).returncode != 0


def test_the_schema_is_migrated_before_anything_else_or_beside_its_database(rendered: dict[str, Any]) -> None:
    hook = of_kind(rendered["values"], "Job")["demo-migrate"]
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    secret = of_kind(rendered["values"], "Secret")["demo-migrate"]
    annotations = [one["metadata"]["annotations"] for one in (secret, hook)]
    assert int(annotations[0]["helm.sh/hook-weight"]) < int(annotations[1]["helm.sh/hook-weight"])
    assert secret["stringData"] == {"K2THINK_DATABASE_URL": "postgresql://u:p@h/k"}
    beside = of_kind(rendered["stores"], "Job")["demo-migrate-1"]
    assert "annotations" not in beside["metadata"]
    for job in (hook, beside):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["db", "upgrade"]


def test_stores_of_its_own_keep_what_they_are_given(rendered: dict[str, Any]) -> None:
    from k2think.schemas.redis_place import parse_redis_url
    from k2think.store.database import parse_url

    stores = of_kind(rendered["stores"], "StatefulSet")
    command = stores["demo-redis"]["spec"]["template"]["spec"]["containers"][0]["command"]
    flags = dict(zip(command[1::2], command[2::2], strict=True))
    assert flags["--appendonly"] == "yes"
    assert flags["--maxmemory-policy"] == "noeviction"
    secret = of_kind(rendered["stores"], "Secret")["demo"]["stringData"]
    database, redis = parse_url(secret["K2THINK_DATABASE_URL"]), parse_redis_url(secret["K2THINK_BROKER_URL"])
    assert (database.host, database.password) == ("demo-postgresql", "p w/d+")
    assert (redis.hosts[0][0], redis.password) == ("demo-redis", "r")
    assert {"demo-postgresql", "demo-redis"} <= set(of_kind(rendered["stores"], "Service"))
    assert not of_kind(rendered["secret"], "StatefulSet")
    users = rendered["pools"]
    mounted = of_kind(users, "StatefulSet")["demo-redis"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "users", "secret": {"secretName": "users"}} in mounted


def test_no_secret_is_in_a_config_map_or_an_argument(rendered: dict[str, Any]) -> None:
    for manifests in rendered.values():
        public = [one for one in manifests if one["kind"] != "Secret"]
        assert not [text for text in strings(public) if "p w/d+" in text or re.search(r"://[^/\s]*:[^/\s]*@", text)]
