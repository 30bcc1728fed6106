"""The chart as helm renders it for several kinds of cluster, and what its manifests say."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from paths import ROOT

CHART = ROOT / "chart"
HELM = ROOT / "tests/kubernetes/helm/node_modules/helm/helm"
NAMESPACE = "voice"
Manifest = dict[str, Any]

# Values by what they are for. Each is rendered, checked by schemas, and tried as a configuration.
CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "xdp": {
        "edge": {
            "cores": [0],
            "xdp": {"interface": "lo", "hostPID": True},
            "advertiseByNode": {"node-a": "203.0.113.10:3478", "node-b": "203.0.113.11:3478"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
            "priorityClassName": "system-node-critical",
        },
        "networkPolicy": {"nodeCIDRs": ["10.0.0.0/16"]},
        "tls": {"secretName": "edge-tls"},
        "transceiver": {"supervised": False},
    },
    "load balancer": {
        "edge": {"exposure": "loadBalancer", "advertise": "203.0.113.10:443", "cores": []},
        "mediaService": {"annotations": {"example.com/shape": "udp"}, "loadBalancerClass": "example.com/nlb"},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "service": {"type": "LoadBalancer", "port": 443},
        "tls": {"secretName": "edge-tls"},
        "config": {"transceiver": {"agent": "local"}},
        "transceiver": {"models": {"enabled": True}},
    },
    "everything": {
        "image": {"repository": "images.example/firsthop", "tag": "0.1.0-1"},
        "imagePullSecrets": [{"name": "pull"}],
        "secrets": {"existingSecret": "made-elsewhere"},
        "ipFamily": "IPv6",
        "config": {
            "edge": {"models": ["parrot", "pipeline"], "calls_per_key": 10, "region": "fra"},
            "transceiver": {"max_sessions": 60, "region": "fra", "vad": "silero"},
            "agents": {"pipeline": {"chat_url": "http://vllm.models:8000/v1", "timeout_s": 7.5}},
            "log": {"level": "debug"},
        },
        "edge": {"podLabels": {"team": "voice"}, "extraEnv": [{"name": "TZ", "value": "UTC"}]},
        "transceiver": {
            "firstId": 100,
            "nodeSelector": {"nvidia.com/gpu.present": "true"},
            "runtimeClassName": "nvidia",
            "resources": {"limits": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"}},
            "autoscaling": {"enabled": True, "maxReplicas": 40},
            "extraContainers": [{"name": "model", "image": "model:1"}],
            "extraVolumes": [{"name": "models", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
        },
        "redis": {"enabled": False, "url": "rediss://redis.example:6380/0", "caSecret": "redis-ca"},
        "metrics": {"annotations": False, "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    },
}


def helm(verb: str, values: Mapping[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    """Runs ``helm lint`` or ``helm template`` of the chart with these values."""
    name = ["firsthop"] if verb == "template" else []
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "values.json"
        file.write_text(json.dumps(values))
        return subprocess.run(
            [HELM, verb, *name, CHART, "--namespace", NAMESPACE, "--values", file, *more],
            env={"HOME": home, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )


@cache
def rendered(case: str) -> tuple[Manifest, ...]:
    """The manifests of a case."""
    done = helm("template", CASES[case])
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def only(case: str, kind: str, part: str = "") -> Manifest:
    """The manifest of that kind, of the part of the chart that its name ends with."""
    (found,) = [each for each in rendered(case) if each["kind"] == kind and each["metadata"]["name"].endswith(part)]
    return found


def workloads(case: str) -> dict[str, Manifest]:
    """The workloads by their part: edge, transceiver and, where the chart has it, redis."""
    kinds = ("DaemonSet", "Deployment", "StatefulSet")
    return {each["metadata"]["name"].rpartition("-")[2]: each for each in rendered(case) if each["kind"] in kinds}


def pod(case: str, part: str) -> Manifest:
    spec: Manifest = workloads(case)[part]["spec"]["template"]["spec"]
    return spec


def container(case: str, part: str) -> Manifest:
    """The container of ours, which comes first."""
    first: Manifest = pod(case, part)["containers"][0]
    return first


def ports(case: str, part: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(case, part)["ports"]}


def probes(case: str, part: str) -> Iterator[tuple[str, Manifest]]:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if name in container(case, part):
            yield name, container(case, part)[name]


def environment(case: str, part: str, fields: Mapping[str, str]) -> dict[str, str]:
    """What Kubernetes puts in the container's environment, where the pod's ``fields`` are these."""
    found: dict[str, str] = {}
    for each in container(case, part)["env"]:
        value = each.get("value", "") if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for name, known in found.items():
            value = value.replace(f"$({name})", known)
        found[each["name"]] = value
    return found


def secrets(case: str) -> dict[str, str]:
    """The Secret that the chart makes."""
    data = only(case, "Secret")["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}
