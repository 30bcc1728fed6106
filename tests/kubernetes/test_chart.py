"""The chart: helm renders it, Kubernetes would take it, and what belongs together in it agrees."""

from __future__ import annotations

import base64
import copy
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from paths import ROOT
from rendering import CASES, CHART, Manifest, container, helm, only, pod, ports, probes, rendered, secrets, workloads

from runtime.families import transceiver as families
from wire import keys
from wire.exposure import too_open

KUBERNETES = ("1.28", "1.37")  # the oldest that Chart.yaml allows, and the newest whose schemas are here
# Of the Prometheus operator, whose schemas are not Kubernetes's.
OTHERS = {"PodMonitor"}


def strictly(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_wrong(case: str) -> None:
    done = helm("lint", CASES[case], "--strict")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_each_manifest_is_one_of_kubernetes(case: str) -> None:
    for manifest in rendered(case):
        for version in KUBERNETES:
            if manifest["kind"] not in OTHERS:
                strictly(manifest, version)


def test_a_field_that_kubernetes_does_not_know_would_be_seen() -> None:
    manifest = copy.deepcopy(only("usual", "StatefulSet", "-transceiver"))
    manifest["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSecond"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        strictly(manifest, KUBERNETES[-1])


@pytest.mark.parametrize("case", CASES)
def test_names_and_namespaces_are_those_of_one_release(case: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered(case)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("firsthop") for _, name in names)


@pytest.mark.parametrize("case", CASES)
def test_what_selects_pods_selects_those_of_one_part(case: str) -> None:
    labels = {part: each["spec"]["template"]["metadata"]["labels"] for part, each in workloads(case).items()}
    found = 0

    def selected(selector: dict[str, str]) -> list[str]:
        return [part for part, its in labels.items() if selector.items() <= its.items()]

    for part, each in workloads(case).items():
        assert selected(each["spec"]["selector"]["matchLabels"]) == [part]
        for spread in pod(case, part).get("topologySpreadConstraints", []):
            assert selected(spread["labelSelector"]["matchLabels"]) == [part]
    for manifest in rendered(case):
        name, spec = manifest["metadata"]["name"].rpartition("-")[2], manifest.get("spec", {})
        part = {"signaling": "edge", "media": "edge"}.get(name, name)
        match manifest["kind"]:
            case "Service":
                assert selected(spec["selector"]) == [part]
            case "PodDisruptionBudget" | "PodMonitor":
                assert selected(spec["selector"]["matchLabels"]) == [part]
            case "NetworkPolicy":
                assert selected(spec["podSelector"]["matchLabels"]) == [part]
            case _:
                continue
        found += 1
    assert found >= 5


@pytest.mark.parametrize("case", CASES)
def test_ports_that_are_named_are_those_of_the_containers(case: str) -> None:
    for manifest in rendered(case):
        part = manifest["metadata"]["name"].rpartition("-")[2]
        part = {"signaling": "edge", "media": "edge"}.get(part, part)
        named: list[Any] = []
        match manifest["kind"]:
            case "Service":
                named = [port["targetPort"] for port in manifest["spec"]["ports"]]
            case "NetworkPolicy":
                rules = manifest["spec"]["ingress"]
                named = [port["port"] for rule in rules for port in rule["ports"] if "endPort" not in port]
            case "PodMonitor":
                named = [each["port"] for each in manifest["spec"]["podMetricsEndpoints"]]
        if named:
            assert set(named) <= set(ports(case, part)), manifest["metadata"]["name"]
    for part in workloads(case):
        numbers = list(ports(case, part).values())
        assert len(set(numbers)) == len(numbers)
        for _, probe in probes(case, part):
            (kind,) = {"httpGet", "tcpSocket", "exec"} & probe.keys()
            assert kind == "exec" or probe[kind]["port"] in ports(case, part)


def test_policies_let_in_who_has_business_there() -> None:
    def peers(case: str, part: str, port: str) -> list[Any] | None:
        rules = only(case, "NetworkPolicy", f"-{part}")["spec"]["ingress"]
        (rule,) = [rule for rule in rules if any(each["port"] == port for each in rule["ports"])]
        found = rule.get("from")
        if found is None:
            return None
        return [
            each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in found if "podSelector" in each
        ]

    assert peers("usual", "transceiver", "link") is None, "nodes' addresses are not known"
    assert peers("xdp", "transceiver", "link") == ["edge", "transceiver"]
    assert peers("load balancer", "transceiver", "link") == ["edge", "transceiver"]
    assert peers("load balancer", "redis", "redis") == ["edge", "transceiver"]
    assert peers("load balancer", "edge", "announce") == ["edge"]
    assert peers("load balancer", "edge", "media") is None
    rules = only("xdp", "NetworkPolicy", "-redis")["spec"]["ingress"]
    assert {"ipBlock": {"cidr": "10.0.0.0/16"}} in rules[0]["from"], "edges come from their nodes"


def test_an_edge_is_on_its_node_or_behind_one_port() -> None:
    assert only("usual", "DaemonSet")["spec"]["template"]["spec"]["hostNetwork"] is True
    assert only("usual", "DaemonSet")["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "hostNetwork" not in only("load balancer", "Deployment")["spec"]["template"]["spec"]
    media = only("load balancer", "Service", "-media")["spec"]
    assert (media["type"], [(p["port"], p["protocol"]) for p in media["ports"]]) == ("LoadBalancer", [(443, "UDP")])
    assert not [each for each in rendered("usual") if each["metadata"]["name"].endswith("-media")]


def test_what_the_chart_makes_is_what_firsthop_reads(tmp_path: Path) -> None:
    made = secrets("usual")
    file = tmp_path / "cluster.toml"
    file.write_text(made["cluster.toml"])
    ours = keys.load(file)
    assert (list(ours.ufrag), ours.sealing) == ([1], 1)
    again = yaml.safe_load(helm("template", {}, "--show-only", "templates/secret.yaml").stdout)["data"]
    assert made["cluster.toml"] != base64.b64decode(again["cluster.toml"]).decode(), "keys are made by chance"
    assert len(made["api-keys"].strip()) == 43
    (volume,) = [each for each in pod("usual", "edge")["volumes"] if each["name"] == "secrets"]
    # Root's, and of the pod's group.
    assert too_open(volume["secret"]["defaultMode"], 0) == 0
    assert pod("usual", "edge")["securityContext"]["fsGroup"] == 10001


def test_a_secret_of_ones_own_is_the_one_that_is_used() -> None:
    assert not [each for each in rendered("everything") if each["kind"] == "Secret"]
    for part in ("edge", "transceiver"):
        (volume,) = [each for each in pod("everything", part)["volumes"] if each["name"] == "secrets"]
        assert volume["secret"]["secretName"] == "made-elsewhere"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"edge": {"exposure": "loadBalancer"}}, "edge.advertise: clients are told the load balancer's address"),
    (
        {"edge": {"exposure": "loadBalancer", "advertise": "203.0.113.10:3478", "xdp": {"interface": "eth0"}}},
        "edge.xdp.interface: XDP needs the node's own network",
    ),
    ({"redis": {"enabled": False}}, "redis.url: edges find transceivers by Redis"),
    ({"redis": {"url": "redis://other:6379"}}, "redis.url: redis.enabled brings the chart's own"),
    (
        {"edge": {"advertise": "203.0.113.10:3478", "advertiseByNode": {"a": "203.0.113.11:3478"}}},
        "edge.advertiseByNode: edge.advertise says another thing",
    ),
    ({"edge": {"exposure": "nowhere"}}, "exposure"),
    ({"edge": {"replica": 3}}, "replica"),
    ({"edge": {"advertise": "edge.example:3478"}}, "advertise"),
    ({"transceiver": {"drainSeconds": "long"}}, "drainSeconds"),
    ({"config": {"edge": "parrot"}}, "config"),
]


@pytest.mark.parametrize(("values", "said"), WRONG)
def test_wrong_values_are_refused_with_their_name(values: dict[str, Any], said: str) -> None:
    done = helm("template", values)
    assert done.returncode != 0
    assert said in done.stderr


def test_every_value_is_used_and_described_by_the_schema() -> None:
    templates = "\n".join(path.read_text() for path in (CHART / "templates").iterdir())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]

    def look(section: dict[str, Any], known: dict[str, Any], path: str) -> None:
        for name, value in section.items():
            assert name in known, f"{path}{name}"
            assert re.search(rf"\.{name}\b", templates), f"{path}{name} is used nowhere"
            if isinstance(value, dict) and known[name].get("properties"):
                look(value, known[name]["properties"], f"{path}{name}.")

    look(values, schema, "")
    assert {name for name in schema if name not in values} == {"global"}


def test_scaling_goes_by_metrics_that_there_are() -> None:
    scaler = only("everything", "HorizontalPodAutoscaler")["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "firsthop_transceiver_fill"
    assert "replicas" not in workloads("everything")["transceiver"]["spec"], "the scaler's word, not the chart's"
    page = (ROOT / "docs/kubernetes.md").read_text()
    assert "firsthop_transceiver_fill" in page
    ours = set(re.findall(r"\bfirsthop_transceiver_\w+_ratio\b", page))
    assert ours == {families.USED.name, families.USED_LIMIT.name}


def test_the_chart_is_of_this_release() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()
    assert container("usual", "edge")["image"] == f"firsthop:{chart['appVersion']}"
    assert container("everything", "edge")["image"] == "images.example/firsthop:0.1.0-1"
