"""The playbooks on hosts that boot: three of Debian's, from nothing to calls and back to nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rolling import NAMES, Rollout, said, timed
from waiting import until

from lab.certificate import certificate
from lab.machines.hosts import Hosts
from lab.machines.image import image

pytestmark = [pytest.mark.trials, pytest.mark.needs_root]

CALLS = 20


@pytest.mark.timeout(3000)
def test_three_hosts_from_nothing_to_calls_and_back_to_nothing(tmp_path: Path) -> None:
    with Hosts(*NAMES, image=image()) as hosts:
        rollout = Rollout(hosts, tmp_path)
        tls = certificate(tmp_path, hosts["gpu-2"].address)
        rollout.settings |= dict(zip(("turn_tls_certificate", "turn_tls_key"), map(str, tls), strict=True))
        before = rollout.left()
        rollout.play("secrets.yml")
        rollout.play("site.yml", "--check")  # of fresh hosts

        rollout.play_until("site.yml", "Install its packages")
        with timed("site.yml, to the first call"):
            rollout.play("site.yml")
        with timed("site.yml again"):
            again = rollout.play("site.yml")
        assert (again.changed, set(again.counts)) == (0, {*NAMES, "localhost"})
        assert rollout.releases() == ["0.1.0"] * 3
        assert "xdp" in hosts["edge-1"].run("ip", "link", "show", "eth0")
        assert rollout.call_relayed() == {"kinds": ["relay"], "heard": 50}

        # A new release under calls: every one of them is heard to its end.
        rollout.wheel = rollout.build("0.1.1")
        rollout.play("site.yml")  # which leaves the release alone
        assert rollout.releases() == ["0.1.0"] * 3
        calls = rollout.call("-n", str(CALLS), "--rate", "10", "--duration", "3000")
        until(lambda: rollout.live() == CALLS)
        with timed(f"upgrade.yml under {CALLS} calls"):
            rollout.play("upgrade.yml")
        assert rollout.live() == CALLS
        assert calls.poll() is None
        assert rollout.releases() == ["0.1.1"] * 3
        calls.terminate()
        report = said(calls)
        print(f"of these calls: {json.dumps(report['calls'])}, frames {json.dumps(report['audio']['frames'])}")
        assert report["calls"]["ok"] == CALLS
        assert rollout.play("upgrade.yml").changed == 0

        # A new key under calls.
        calls = rollout.call("-n", str(CALLS), "--rate", "10", "--duration", "3000")
        until(lambda: rollout.live() == CALLS)
        with timed(f"rotate-keys.yml under {CALLS} calls"):
            rollout.play("rotate-keys.yml")  # the first step, for other clusters have to be told
            rollout.play("rotate-keys.yml")
        calls.terminate()
        assert said(calls)["calls"]["ok"] == CALLS
        assert keys(hosts) == {"2"}
        shared = (tmp_path / "inventory/shared.toml").read_text()
        ours = hosts["edge-1"].run("cat", "/etc/firsthop/cluster.toml")
        assert re.findall("(?m)^(?:id|key) = .*$", shared) == re.findall("(?m)^(?:id|key) = .*$", ours)
        assert len({hosts[name].run("sha256sum", "/etc/firsthop/cluster.toml") for name in NAMES}) == 1
        said(rollout.call("--duration", "1"))

        # Prometheus hears of every process, and its alerts say where the runbook is.
        def health() -> set[str]:
            said = json.loads(rollout.ask("edge-1", "http://127.0.0.1:9090/api/v1/targets"))
            return {target["health"] for target in said["data"]["activeTargets"]}

        until(lambda: health() == {"up"})
        rules = hosts["edge-1"].run("cat", "/etc/prometheus/firsthop/rules/alerts.yml")
        for page in set(re.findall(r"runbook_url: file://(\S+)#", rules)):
            hosts["edge-1"].run("test", "-s", page)
        assert "runbook_url: docs" not in rules

        hosts["edge-1"].shut_down()
        with timed("an edge boots, to the end of a call of a second"):
            hosts["edge-1"].boot()
            until(rollout.ready)
            said(rollout.call("--duration", "1"))

        with timed("remove.yml"):
            rollout.play("remove.yml")
        assert rollout.left() == before


def keys(hosts: Hosts) -> set[str]:
    """How many ufrag keys hosts have, each number once."""
    return {hosts[name].run("grep", "-c", "ufrag", "/etc/firsthop/cluster.toml").strip() for name in NAMES}
