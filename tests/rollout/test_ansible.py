"""The playbooks and roles where no host is needed: style, variables, secrets, inventories, and what templates make."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_run import TREE, Ansible
from paths import ROOT

from lab.appliance import Loopback
from lab.coturn import Coturn
from runtime import ports
from runtime.config import Config, load
from wire.keys import parse

DEFAULTS: dict[str, Any] = yaml.safe_load((TREE / "group_vars/all/main.yml").read_text())
SPECS: dict[str, dict[str, Any]] = {
    path.parents[1].name: yaml.safe_load(path.read_text())["argument_specs"]
    for path in sorted(TREE.glob("roles/*/meta/argument_specs.yml"))
}
CORES = len(os.sched_getaffinity(0))
# Hosts that are all this one.
HOSTS = {
    "edge": {
        "hosts": {
            "e1": {"ansible_host": "127.0.0.11"},
            "e2": {
                "ansible_host": "127.0.0.12",
                "edge_relays": ["198.51.100.16/28"],
                "edge_backbone_port": 7460,
                "edge_backbone_trusted": ["192.0.2.9"],
                "edge_clusters": [{"name": "iad", "keys": "iad.toml", "edges": ["tcp://10.2.0.10:7460"]}],
            },
        }
    },
    "transceiver": {
        "hosts": {
            "t1": {"ansible_host": "127.0.0.21", "transceiver_id": 1},
            "t2": {"ansible_host": "127.0.0.22", "transceiver_id": 300, "transceiver_cores": [0]},
        }
    },
    "redis": {"hosts": {}},
    "turn": {"hosts": {"e1": None, "t1": None}},
    "monitoring": {"hosts": {"e1": None}},
}


def ansible(folder: Path, groups: dict[str, Any] = HOSTS, **variables: Any) -> Ansible:
    """With an inventory of these groups, in the folder."""
    inventory = folder / "inventory"
    inventory.mkdir(exist_ok=True)
    wheel = folder / "firsthop-1.2.3-py3-none-any.whl"
    wheel.write_bytes(b"not looked into")
    everywhere = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "firsthop_wheel": str(wheel),
        **variables,
    }
    # Without it a fact would have to be gathered.
    everywhere["firsthop_cpus"] = list(range(CORES))
    (inventory / "group_vars").mkdir(exist_ok=True)
    (inventory / "group_vars/firsthop.yml").write_text(json.dumps(everywhere))
    hosts = inventory / "hosts.yml"
    hosts.write_text(json.dumps({"firsthop": {"children": groups}}))
    return Ansible(hosts, folder)


# --- style


def test_the_tree_is_as_ansible_lint_wants_it_in_production(tmp_path: Path) -> None:
    done = ansible(tmp_path).run("ansible-lint", "--offline", "--nocolor")
    assert done.returncode == 0, done.stdout
    assert "Profile 'production' was required" in done.stdout, done.stdout


def test_the_tree_is_as_yamllint_wants_it(tmp_path: Path) -> None:
    done = ansible(tmp_path).run("yamllint", "--strict", ".")
    assert (done.returncode, done.stdout) == (0, "")


# --- variables


def test_roles_say_what_they_need_and_every_variable_has_a_default() -> None:
    needed = {
        name
        for role in SPECS.values()
        for entry in role.values()
        for name in entry["options"]
        if not name.startswith(("common_",))
    }
    assert needed <= DEFAULTS.keys()
    used = (
        "".join(path.read_text() for path in (*TREE.glob("*.yml"), *TREE.glob("tasks/*.yml")))
        + (TREE / "group_vars/all/derived.yml").read_text()
    )
    assert not [name for name in DEFAULTS.keys() - needed if name not in used]


def test_a_role_uses_no_variable_that_it_does_not_ask_for() -> None:
    for role, entries in SPECS.items():
        asked = {name for entry in entries.values() for name in entry["options"]}
        text = "".join(path.read_text() for path in (TREE / "roles" / role).rglob("*.*") if path.parent.name != "meta")
        # The hosts' own variables are read by name; other hosts' and derived ones are read through these.
        words = set(re.findall(r"(?<![.\w/])[a-z]\w+", text))
        missing = (words & DEFAULTS.keys()) - asked
        assert not missing, role


def test_every_default_is_explained() -> None:
    lines = (TREE / "group_vars/all/main.yml").read_text().splitlines()
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r"\w+:", line) and not before.strip()
    ]
    said_by_their_names = {"firsthop_secrets", "edge_region", "transceiver_region", "edge_name", "redis_port"}
    assert {line.partition(":")[0] for line in bare} <= said_by_their_names


# --- secrets


def secrets(tool: Ansible) -> dict[str, Any]:
    done = tool.run("ansible-vault", "view", str(tool.inventory.parent / "secrets.yml"))
    assert done.returncode == 0, done.stdout
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_secrets_are_made_once_and_nobody_can_read_them(tmp_path: Path) -> None:
    tool = ansible(tmp_path)
    first = tool.play("secrets.yml")
    assert first.returncode == 0, first.stdout
    file = tmp_path / "inventory/secrets.yml"
    encrypted = file.read_bytes()
    assert encrypted.startswith(b"$ANSIBLE_VAULT;")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    password = tmp_path / ".config/firsthop/vault-password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    made = secrets(tool)
    keys = parse(made["firsthop_cluster_keys"], file)
    assert (keys.sealing, len(keys.link), len(keys.ufrag[1])) == (1, 32, 16)
    assert keys.link.hex() not in first.stdout
    assert len(made["firsthop_api_keys"].strip()) == 43

    second = tool.play("secrets.yml")
    assert " changed=0 " in second.stdout
    assert file.read_bytes() == encrypted

    file.unlink()
    tool.play("secrets.yml")
    others = secrets(tool)
    assert not [name for name in made if made[name] == others[name]]


# --- inventories


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"transceiver": {"hosts": {}}},
            "at least one host in the group edge (now 2) and one in the group transceiver (now 0)",
        ),
        ({"edge": {"hosts": {}}}, "at least one host in the group edge (now 0)"),
        ({"redis": {"hosts": {"r1": None, "r2": None}}}, "The group redis has 2 hosts"),
        (
            {"edge": {"hosts": {"edge.example": None}}},
            "edge.example: firsthop_address is edge.example, which is no IP address",
        ),
        (
            {
                "edge": {"hosts": {"t1": None}},
                "transceiver": {"hosts": {"t1": {"ansible_host": "127.0.0.21"}, "t2": {"ansible_host": "127.0.0.22"}}},
                "turn": {"hosts": {}},
                "monitoring": {"hosts": {}},
            },
            "Transceivers have the same ids",
        ),
    ],
    ids=["no transceivers", "no edges", "two Redis", "names", "ids"],
)
def test_an_inventory_that_cannot_be_is_refused_with_what_to_do(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    done = ansible(tmp_path, HOSTS | change).play("prepare.yml")
    assert done.returncode == 2, done.stdout
    assert said in " ".join(done.stdout.split()), done.stdout


def test_a_wheel_that_is_missing_is_named(tmp_path: Path) -> None:
    done = ansible(tmp_path, firsthop_wheel="/nowhere/firsthop.whl").play("prepare.yml")
    assert "There is no wheel at /nowhere/firsthop.whl: build it (make dist)" in " ".join(done.stdout.split())


# --- what templates make

TEMPLATES = {
    "firsthop.toml": "common/templates/firsthop.toml.j2",
    "firewall.nft": "common/templates/firewall.nft.j2",
    "transceiver.env": "transceiver/templates/transceiver.env.j2",
    "targets.json": "monitoring/templates/targets.json.j2",
    "turnserver.conf": "turn/templates/turnserver.conf.j2",
}
TURN_SECRET = "a-secret-that-coturn-has-too"
RENDER = [
    {
        "hosts": "edge:transceiver",
        "gather_facts": False,
        "tasks": [
            *({"ansible.builtin.include_vars": f"{TREE}/roles/{role}/vars/main.yml"} for role in ("common", "turn")),
            # All at once: a task costs more than a template.
            {
                "ansible.builtin.copy": {
                    "content": "{{ texts | to_json }}",
                    "dest": "{{ playbook_dir }}/{{ inventory_hostname }}.json",
                    "mode": "0600",
                },
                "vars": {
                    "firsthop_turn_secret": TURN_SECRET,
                    "texts": {
                        name: f"{{{{ lookup('ansible.builtin.template', '{TREE}/roles/{path}') }}}}"
                        for name, path in TEMPLATES.items()
                    },
                },
            },
        ],
    }
]
SETTINGS = {
    "log": {"level": "debug"},
    "edge": {"models": ["parrot", "pipeline"], "ice_servers": [{"url": "stun:stun.example:3478"}]},
    "agents": {"pipeline": {"voice": 'say "a\\b"'}},
}


def render(tool: Ansible) -> None:
    """Makes each template for each of the hosts, in the home of the tool."""
    playbook = tool.home / "render.yml"
    playbook.write_text(json.dumps(RENDER))
    # The variables beside the playbooks are found beside this one.
    shutil.copytree(TREE / "group_vars", tool.home / "group_vars")
    done = tool.run("ansible-playbook", str(playbook))
    assert done.returncode == 0, done.stdout
    for texts in tool.home.glob("*.json"):
        for name, text in json.loads(texts.read_text()).items():
            file = tool.home / f"{texts.stem}-{name}"
            file.write_text(text if isinstance(text, str) else json.dumps(text))
            file.chmod(0o600)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    """The templates of two edges and two transceivers."""
    tool = ansible(
        tmp_path_factory.mktemp("made"),
        firsthop_settings=SETTINGS,
        edge_region="fra",
        firsthop_trusted=["192.0.2.0/24", "2001:db8::/32"],
        turn_name="turn.example",
        turn_tls_certificate="/somewhere/turn.pem",
        turn_tls_key="/somewhere/turn.key",
        turn_more_peers=["2001:db8::7"],
        turn_old_secrets=["the-one-before-that"],
    )
    render(tool)
    return tool


def accepted(tool: Ansible, host: str, what: str, *, redis: bool = False) -> Config:
    """The configuration of the host, once `firsthop <what> --check` has accepted it."""
    file = tool.home / f"{host}-firsthop.toml"
    keys = tool.home / "cluster.toml"
    if not keys.exists():
        subprocess.run([sys.executable, "-m", "firsthop", "keys", "new", "-o", str(keys)], check=True, cwd=ROOT)
        (tool.home / "api-keys").write_text("token\n")
        (tool.home / "turn-secret").write_text(TURN_SECRET + "\n")
        for name in ("api-keys", "turn-secret"):
            (tool.home / name).chmod(0o600)
    file.write_text(file.read_text().replace("/etc/firsthop/turn-secret", str(tool.home / "turn-secret")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTHOP_")} | {
        "FIRSTHOP_CLUSTER__KEYS": str(keys),
        "FIRSTHOP_EDGE__API_KEYS": str(tool.home / "api-keys"),
        "FIRSTHOP_EDGE__RUN": str(tool.home),
        "FIRSTHOP_TRANSCEIVER__RUN": str(tool.home),
    }
    if redis:
        environment["FIRSTHOP_DIRECTORY__PASSWORD_FILE"] = str(tool.home / "api-keys")
    argv = [sys.executable, "-m", "firsthop", what, "--check", "--config", str(file)]
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (done.stderr, file.read_text())
    return load(file)


def test_configurations_are_accepted_and_tell_of_each_other(made: Ansible) -> None:
    edge = accepted(made, "e1", "edge")
    assert str(edge.edge.media) == "127.0.0.11:3478"
    assert edge.edge.models == ("parrot", "pipeline")
    assert (edge.log.level, edge.agents.pipeline.voice) == ("debug", 'say "a\\b"')
    urls = ["turn:turn.example:{}?transport=udp", "turn:turn.example:{}?transport=tcp"]
    assert [server.url for server in edge.edge.ice_servers] == [
        "stun:stun.example:3478",
        # Media of the one has the port that is coturn's else.
        *(url.format(3479) for url in urls),
        "turns:turn.example:443?transport=tcp",
        *(url.format(3478) for url in urls),
        "turns:turn.example:443?transport=tcp",
    ]
    assert [(row.name, str(row.endpoint), row.region) for row in edge.edge.edges] == [
        ("e1", "tcp://127.0.0.11:7450", "fra"),
        ("e2", "tcp://127.0.0.12:7450", "fra"),
    ]
    first, second = (accepted(made, host, "transceiver").transceiver for host in ("t1", "t2"))
    assert len(first.processes) == CORES
    there = [(process.id, str(process.endpoint)) for process in (*first.processes, *second.processes)]
    assert [(peer.id, str(peer.endpoint)) for peer in edge.edge.transceivers] == there
    assert there[-1] == (300, "tcp://127.0.0.22:7400")
    other = load(made.home / "e2-firsthop.toml").edge
    assert edge.edge.relays == ("127.0.0.11", "127.0.0.21")
    assert other.relays == ("127.0.0.11", "127.0.0.21", "198.51.100.16/28")
    assert other.transceivers == edge.edge.transceivers
    assert (edge.edge.backbone, other.backbone) == (None, "tcp://127.0.0.12:7460")
    (cluster,) = other.clusters
    assert (cluster.name, str(cluster.keys)) == ("iad", "/etc/firsthop/clusters/iad.toml")
    assert cluster.edges == ("tcp://10.2.0.10:7460",)


def test_a_host_that_is_all_shares_its_cores_out(tmp_path: Path) -> None:
    one = {"hosts": {"one": {"ansible_host": "127.0.0.11"}}}
    tool = ansible(tmp_path, {"edge": one, "transceiver": one, "redis": one, "monitoring": one})
    render(tool)
    config = accepted(tool, "one", "edge", redis=True)
    accepted(tool, "one", "transceiver", redis=True)
    assert config.directory.redis == "redis://127.0.0.11:6379/0"
    assert config.edge.transceivers == config.edge.edges == ()
    assert not {*config.edge.cores} & {*config.transceiver.cores}
    assert {*config.edge.cores, *config.transceiver.cores} == (set(range(CORES)) if CORES > 2 else set())


def test_prometheus_asks_every_process_where_it_says_how_it_is(made: Ansible) -> None:
    targets = json.loads((made.home / "e1-targets.json").read_text())
    asked = {
        (group["labels"]["host"], group["labels"]["component"]): address
        for group in targets
        for address in group["targets"]
    }
    expected: dict[tuple[str, str], str] = {}
    for host in ("e1", "e2"):
        metrics = load(made.home / f"{host}-firsthop.toml").edge.metrics
        expected[host, "edge-supervisor"] = str(metrics)
        expected[host, "signaling"] = str(ports.signaling(metrics))
        expected |= {(host, f"worker-{i}"): str(ports.worker(metrics, i)) for i in range(CORES)}
    expected["e2", "gateway"] = str(ports.worker(metrics, CORES))
    for host in ("t1", "t2"):
        ours = load(made.home / f"{host}-firsthop.toml").transceiver
        expected[host, "transceiver-supervisor"] = str(ours.metrics)
        expected |= {(host, f"transceiver-{process.id}"): str(process.metrics) for process in ours.processes}
    assert asked == expected


def test_the_firewall_shuts_the_ports_of_the_cluster_and_no_others(made: Ansible) -> None:
    tables = {host: made.home / f"{host}-firewall.nft" for host in ("e1", "e2", "t2")}
    edge, gateway = tables["e1"].read_text(), tables["e2"].read_text()
    assert f"tcp dport {{ 7450, 9400-{9401 + CORES} }} jump cluster" in edge
    assert "tcp dport { 7400-7400, 9500-9501 } jump cluster" in tables["t2"].read_text()
    assert "ip saddr { 127.0.0.11, 127.0.0.12, 127.0.0.21, 127.0.0.22, 192.0.2.0/24 } accept" in edge
    assert "ip6 saddr { 2001:db8::/32 } accept" in edge
    # The gateway has a port of metrics more, and other clusters reach its backbone and nothing else.
    assert f"tcp dport {{ 7450, 9400-{9402 + CORES} }} jump cluster" in gateway
    assert "tcp dport 7460 jump backbone" in gateway
    assert "ip saddr { 10.2.0.10, 192.0.2.9 } accept" in gateway.partition("chain backbone")[2].partition("}\n")[0]
    assert "7460" not in edge
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if nft and os.geteuid() == 0:
        for table in tables.values():
            subprocess.run(["unshare", "--net", nft, "--check", "--file", str(table)], check=True)


def test_units_and_transceivers_agree_on_where_they_are(made: Ansible) -> None:
    lines = (made.home / "t2-transceiver.env").read_text().splitlines()[1:]
    ours = tomllib.loads((made.home / "t2-firsthop.toml").read_text())["transceiver"]
    assert dict(line.split("=", 1) for line in lines) == {
        "FIRSTHOP_TRANSCEIVER__ENDPOINT": ours["endpoint"],
        "FIRSTHOP_TRANSCEIVER__METRICS": ours["metrics"],
    }


def test_coturn_is_told_what_the_one_of_the_lab_is(made: Ansible, tmp_path: Path) -> None:
    def told(text: str) -> list[list[str]]:
        lines = (line.partition("=") for line in text.splitlines() if line and not line.startswith("#"))
        ours = ("listening-ip", "relay-ip", "listening-port", "cert", "pkey", "userdb", "log-file", "syslog")
        return sorted([name, value] for name, _, value in lines if name not in ours)

    peers = ["127.0.0.11", "127.0.0.12", "2001:db8::7"]
    files = (tmp_path / "turn.pem", tmp_path / "turn.key")
    lab = Coturn(Loopback(), tmp_path, secret=TURN_SECRET, peers=peers, tls=files)
    before = ["static-auth-secret", "the-one-before-that"]
    for host in ("e1", "t1"):
        assert told((made.home / f"{host}-turnserver.conf").read_text()) == sorted([*told(lab.config), before])
