"""Whole calls by clients that are none of ours, each a process on the lab's client host, through XDP: it connects, is
greeted on its channel, changes its session, speaks and hears, and hangs up. What each of them does is in
``tests/clients/``; nothing there knows more of firsthop than its URL and a token."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from privileges import cannot_run

from lab.appliance import Appliance
from lab.network import Lab

CLIENTS = Path(__file__).parent
OLDER_AIORTC = CLIENTS.parent.parent / ".venv-aiortc/bin/python"
RSA, ECDSA, MAX_BUNDLE = {"certificate": "rsa"}, {"certificate": "ecdsa"}, {"bundle": "max-bundle"}
NEGOTIATED = {"query": "&dcid=4", "label": "talk", "channel": {"negotiated": True, "id": 4}}


VARIANTS: tuple[dict[str, Any], ...] = ({}, {**RSA, **MAX_BUNDLE}, ECDSA, NEGOTIATED)
BROWSERS = [
    pytest.param([sys.executable, "call_browser.py", browser, *map(json.dumps, VARIANTS)], id=browser)
    for browser in ("chromium", "firefox")
]
NODE = [pytest.param(["node", f"call-{name}.mjs"], id=name) for name in ("wrtc", "werift", "node-datachannel")]
PYTHON = [
    pytest.param([sys.executable, "call_aiortc.py"], id="aiortc"),
    pytest.param([str(OLDER_AIORTC), "call_aiortc.py"], id="aiortc-1.13"),
    pytest.param(["/usr/bin/python3", "call_gstreamer.py", "max-bundle"], id="gstreamer-max-bundle"),
    pytest.param(["/usr/bin/python3", "call_gstreamer.py"], id="gstreamer-as-it-is"),
]


@pytest.mark.needs_root
@pytest.mark.parametrize("argv", [*NODE, *PYTHON, *BROWSERS])
def test_a_whole_call(argv: list[str], lab: Lab, appliance: Appliance) -> None:
    program, script, *more = argv
    wanted = [Path(program)] if "/" in program else [CLIENTS / "node_modules/werift"]
    wanted += [Path(f"/usr/bin/{each}") for each in ("chromium", "firefox-esr") if each.split("-")[0] in more]
    if "gstreamer" in script:
        wanted.append(Path("/usr/share/doc/gstreamer1.0-nice"))
    if missing := [path for path in wanted if not path.exists()]:
        cannot_run(f"needs {', '.join(map(str, missing))}: run scripts/setup dev as root")
    whole = lab.client.command([program, script, appliance.url, appliance.token, *more])
    done = subprocess.run(whole, cwd=CLIENTS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)
    lines = done.stdout.splitlines()
    # Firefox says more, of itself.
    results = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(results) == (len(VARIANTS) if script == "call_browser.py" else 1)
    for result in results:
        assert result["heard"] >= 100
        assert result["hung"] == 200
        if argv[1:] != ["call_gstreamer.py"]:
            assert result["instructions"] == "Be kind."
            assert result["media"]["heard"] >= 50
