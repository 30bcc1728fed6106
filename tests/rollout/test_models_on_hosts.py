"""The playbooks bring hosts of transceivers the small models, which answer calls in the sandbox of the unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from rolling import NAMES, TRANSCEIVERS, UNITS, Rollout, said, timed

from lab.machines.hosts import Hosts
from lab.machines.image import image
from lab.machines.wheels import wheelhouse

pytestmark = [pytest.mark.trials, pytest.mark.needs_root]


@pytest.mark.timeout(1800)
def test_hosts_with_models_answer_aloud(tmp_path: Path) -> None:
    with Hosts(*NAMES, image=image()) as hosts:
        rollout = Rollout(hosts, tmp_path)
        rollout.settings |= {
            "firsthop_models": True,
            "firsthop_wheelhouse": str(wheelhouse(models=True)),
            "transceiver_agent": "local",
        }
        rollout.play("secrets.yml")
        with timed("site.yml with models"):
            rollout.play("site.yml")
        assert rollout.play("site.yml").changed == 0
        for name in NAMES:
            release = hosts[name].run("readlink", "/opt/firsthop/.venv").strip()
            assert release.endswith("-models") == (name in TRANSCEIVERS)
            if name in TRANSCEIVERS:
                print(f"{release} of {name} has {hosts[name].run('du', '-sm', release).split()[0]} MiB")

        # The caller's own speech is no words, and that is what it is told, in the models' voice.
        report = said(rollout.call("--model", "local", "--duration", "20"))
        assert report["calls"]["ok"] == 1
        assert report["per_call"][0]["response_ms"] is not None
        engines = [name for name in TRANSCEIVERS if hosts[name].run("pgrep", "-x", "firsthop-models", check=False)]
        (name,) = engines  # of the host that has the call
        pid = hosts[name].run("pgrep", "-x", "firsthop-models").strip()
        assert UNITS[name] in hosts[name].run("cat", f"/proc/{pid}/cgroup")
        status = hosts[name].run("cat", f"/proc/{pid}/status")
        print([line for line in status.splitlines() if line.startswith(("VmRSS", "Seccomp:", "NoNewPrivs"))])
        assert "NoNewPrivs:\t1" in status

        rollout.play("remove.yml")
        assert not hosts[name].run("pgrep", "-x", "firsthop-models", check=False)
