"""The services that the chart has Kubernetes run: each starts with its configuration, has no more rights than a unit,
says truly how it is, and has the time that it needs to end.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paths import ROOT
from rendering import CASES, Manifest, container, environment, only, pod, ports, probes, secrets, workloads

from firsthop.cli import main
from runtime import ports as metrics_ports
from runtime.config import Config, load
from runtime.supervision.beats import HEALTH_PATH
from wire.keys import new_file_text

OURS = ("edge", "transceiver")
EVERY = [(case, part) for case in CASES for part in OURS]
FIELDS = {
    "status.podIP": "127.0.0.1",
    "spec.nodeName": "node-a",
    "metadata.name": "firsthop-edge-6c7f9-x2x4z",
    "metadata.labels['apps.kubernetes.io/pod-index']": "101",
}


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that lays a pod's files out below a folder, and sets its environment. Returns the configuration's."""

    def lay(case: str, part: str) -> Path:
        address = "::1" if CASES[case].get("ipFamily") == "IPv6" else "127.0.0.1"
        for name in [name for name in os.environ if name.startswith("FIRSTHOP_")]:
            monkeypatch.delenv(name)
        for name, value in environment(case, part, {**FIELDS, "status.podIP": address}).items():
            monkeypatch.setenv(name, value)
        (mount,) = [each for each in container(case, part)["volumeMounts"] if each["name"] == "configuration"]
        key = mount.get("subPath") or mount["subPathExpr"].replace("$(FIRSTHOP_EDGE__NAME)", FIELDS["spec.nodeName"])
        assert mount["mountPath"] == environment(case, part, FIELDS)["FIRSTHOP_CONFIG_FILE"]
        text = only(case, "ConfigMap")["data"][key]
        folder = tmp_path / "run-secrets"
        for place in set(re.findall(r'"(/run/secrets/[^"]*)"', text)):
            file = folder / place.removeprefix("/run/secrets/")
            file.parent.mkdir(parents=True, exist_ok=True)
            made = (
                secrets(case)
                if not CASES[case].get("secrets")
                else {"cluster.toml": new_file_text(), "api-keys": "k\n"}
            )
            file.write_text(made.get(file.name, "a password\n"))
            file.chmod(0o400)
        file = tmp_path / "firsthop.toml"
        # Certificates are tried by tests of their own.
        text = re.sub(r"^ *(tls_certificate|tls_key|ca_file) = .*\n", "", text, flags=re.MULTILINE)
        file.write_text(text.replace("/run/secrets/", f"{folder}/"))
        monkeypatch.setenv("FIRSTHOP_CONFIG_FILE", str(file))
        return file

    return lay


@pytest.mark.parametrize(("case", "part"), EVERY)
def test_a_pod_would_run_with_its_configuration(case: str, part: str, mounted: Any) -> None:
    mounted(case, part)
    said = CliRunner().invoke(main, ["config", "check"], catch_exceptions=False)
    assert said.output == f"{part} would run\n"
    assert said.exit_code == 0


@pytest.mark.parametrize(("case", "part"), EVERY)
def test_ports_are_those_of_the_configuration(case: str, part: str, mounted: Any) -> None:
    config = load(mounted(case, part))
    named = ports(case, part)
    if part == "transceiver":
        address = config.transceiver.endpoint.address
        assert address is not None
        assert config.transceiver.supervised is (case != "xdp")
        process = {"process": config.transceiver.processes[0].metrics.port} if config.transceiver.supervised else {}
        assert named == {"link": address.port, "metrics": config.transceiver.metrics.port} | process
        assert config.transceiver.id == 101
        return
    edge = config.edge
    assert edge.announce is not None
    assert edge.announce.address is not None
    wanted = {
        "media": edge.media.port,
        "http": edge.http.port,
        "announce": edge.announce.address.port,
        "metrics": edge.metrics.port,
        "signaling": metrics_ports.signaling(edge.metrics).port,
    }
    workers = {f"worker-{i}": metrics_ports.worker(edge.metrics, i).port for i in range(len(edge.cores))}
    assert named == wanted | workers


def test_values_of_the_configuration_reach_who_they_are_for(mounted: Any) -> None:
    edge = load(mounted("everything", "edge"))
    assert (edge.edge.models, edge.edge.calls_per_key, edge.edge.region) == (("parrot", "pipeline"), 10, "fra")
    assert edge.transceiver == Config().transceiver
    ours = load(mounted("everything", "transceiver"))
    assert ours.edge.models == Config().edge.models
    assert (ours.transceiver.max_sessions, ours.transceiver.vad) == (60, "silero")
    for config in (edge, ours):
        assert config.agents.pipeline.timeout_s == 7.5
        assert (config.log.level, config.log.format) == ("debug", "json")
        assert config.directory.redis == "rediss://redis.example:6380/0"


def test_each_node_tells_clients_its_own_address(mounted: Any) -> None:
    config = load(mounted("xdp", "edge"))
    assert (config.edge.name, config.edge.advertise) == ("node-a", "203.0.113.10:3478")
    assert "203.0.113.11:3478" in only("xdp", "ConfigMap")["data"]["edge.node-b.toml"]


def of_unit(name: str) -> set[str]:
    (line,) = re.findall(r"^AmbientCapabilities=(.*)$", (ROOT / "systemd" / name).read_text(), re.MULTILINE)
    return {each.removeprefix("CAP_") for each in line.split()}


@pytest.mark.parametrize(("case", "part"), [*EVERY, ("usual", "redis"), ("load balancer", "redis")])
def test_nothing_has_rights_that_it_does_not_need(case: str, part: str) -> None:
    spec, its = pod(case, part), container(case, part)["securityContext"]
    xdp = part == "edge" and case == "xdp"
    assert set(its["capabilities"].get("add", [])) == (of_unit("firsthop-edge.service") if xdp else set())
    assert its["capabilities"]["drop"] == ["ALL"]
    assert (its["allowPrivilegeEscalation"], its["readOnlyRootFilesystem"]) == (False, True)
    assert "privileged" not in its
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"].get("runAsNonRoot", False) is not xdp
    assert (spec["securityContext"]["runAsUser"] == 0) is xdp
    assert spec["automountServiceAccountToken"] is False
    assert container(case, part)["resources"].keys() & {"requests", "limits"}


def test_models_get_the_memory_that_they_need() -> None:
    def gib(case: str, what: str) -> int:
        memory: str = container(case, "transceiver")["resources"][what]["memory"]
        return int(memory.removesuffix("Gi"))

    assert CASES["load balancer"]["transceiver"]["models"]["enabled"]
    # 620 MiB resident, and 900 while they are loaded (transceiver/engine/weights.py).
    for what in ("requests", "limits"):
        assert gib("load balancer", what) == gib("usual", what) + 1


@pytest.mark.parametrize("case", CASES)
def test_only_xdp_sees_anything_of_its_node(case: str) -> None:
    for part in workloads(case):
        paths = {each["name"]: each["hostPath"]["path"] for each in pod(case, part)["volumes"] if "hostPath" in each}
        xdp = case == "xdp" and part == "edge"
        assert set(paths.values()) == ({"/lib/modules", "/usr/src", "/sys/fs/bpf"} if xdp else set())
        assert pod(case, part).get("hostPID", False) is xdp
        writable = [each["name"] for each in container(case, part)["volumeMounts"] if not each.get("readOnly")]
        assert set(paths) & set(writable) == ({"bpf"} if xdp else set())


def test_xdp_pins_where_the_nodes_file_system_is_mounted(mounted: Any) -> None:
    config = load(mounted("xdp", "edge"))
    (mount,) = [each for each in container("xdp", "edge")["volumeMounts"] if each["name"] == "bpf"]
    assert config.edge.pins.is_relative_to(mount["mountPath"])
    assert not mount["mountPath"].startswith("/sys"), "AppArmor's usual profile lets nobody write there"
    assert config.edge.interface == "lo"
    assert load(mounted("usual", "edge")).edge.interface == ""


def test_no_variable_of_a_service_can_be_taken_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for case, part in EVERY:
        assert pod(case, part)["enableServiceLinks"] is False
    monkeypatch.setenv("FIRSTHOP_SIGNALING_SERVICE_HOST", "10.0.0.7")
    refused = CliRunner().invoke(main, ["config", "check"], catch_exceptions=False)
    assert (refused.exit_code, "no such section" in refused.output) == (2, True), "what would be without that"


def calls_port(case: str, part: str) -> str:
    """The port of metrics at which a transceiver's process answers that has the calls; of an edge its supervisor's."""
    return "process" if part == "transceiver" and "process" in ports(case, part) else "metrics"


@pytest.mark.parametrize(("case", "part"), EVERY)
def test_probes_ask_for_pages_that_there_are(case: str, part: str) -> None:
    found = {name: (probe["httpGet"]["path"], probe["httpGet"]["port"]) for name, probe in probes(case, part)}
    begun = (HEALTH_PATH, calls_port(case, part))
    assert found == {
        "startupProbe": begun,
        "livenessProbe": (HEALTH_PATH, "metrics"),
        "readinessProbe": ("/readyz", "http") if part == "edge" else begun,
    }
    if part == "edge":
        tls = bool(CASES[case].get("tls"))
        scheme = container(case, part)["readinessProbe"]["httpGet"]["scheme"]
        assert scheme == ("HTTPS" if tls else "HTTP")
        assert f'router.add_get("{found["readinessProbe"][0]}"' in (ROOT / "edge/signaling/app.py").read_text()


@pytest.mark.parametrize(("case", "part"), EVERY)
def test_there_is_time_to_drain_before_it_is_killed(case: str, part: str, mounted: Any) -> None:
    config = load(mounted(case, part))
    drain_s = getattr(config, part).drain_s
    before: list[str] = container(case, part).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    leaves_s = int(before[1]) if before else 0
    assert before == (["sleep", "5"] if part == "edge" else [])
    assert drain_s == 120
    assert leaves_s + drain_s + 10 <= pod(case, part)["terminationGracePeriodSeconds"]


def test_changed_values_start_pods_anew() -> None:
    def stamp(case: str, part: str) -> str:
        annotations: Manifest = workloads(case)[part]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["firsthop/configuration"])

    assert re.fullmatch(r"[0-9a-f]{64}", stamp("usual", "edge"))
    assert len({stamp(case, "transceiver") for case in CASES}) == len(CASES)


def test_annotations_name_the_port_of_metrics_that_says_most() -> None:
    for part, case in ((part, case) for part in OURS for case in ("usual", "xdp")):
        annotations = workloads(case)[part]["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(ports(case, part)[calls_port(case, part)])
    for part in OURS:
        assert "prometheus.io/port" not in workloads("everything")[part]["spec"]["template"]["metadata"]["annotations"]
