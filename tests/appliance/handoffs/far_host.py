"""Another transceiver host of a lab, with agents of another package: "far" is a loopback, and "slow" is never warm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from waiting import DEADLINE_S

from lab.appliance import Appliance
from lab.network import Lab

PACKAGE = {
    "far_agents.py": """
from __future__ import annotations

import asyncio
from pathlib import Path

from transceiver.agents import Base, loopback


class Far(loopback.Agent):
    rate_hz = 16000


class Slow(Base):
    runs = "thread"

    async def warm(self, settings, items):
        Path(__file__).with_name("warming").touch()
        await asyncio.sleep(3600)
""",
    "far_agents-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: far-agents\nVersion: 1\n",
    "far_agents-1.dist-info/entry_points.txt": "[firsthop.agents]\nfar = far_agents:Far\nslow = far_agents:Slow\n",
}


class FarHost:
    """The transceiver 3, on the host of the edge. A context manager."""

    def __init__(self, lab: Lab, house: Appliance, folder: Path) -> None:
        self._host, self._folder = lab.edge, folder
        self.endpoint = f"tcp://{lab.edge_inner_address}:7403"
        for name, text in PACKAGE.items():
            path = folder / "package" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.warming = folder / "package" / "warming"
        (folder / "firsthop.toml").write_text(
            f'[cluster]\nkeys = "{house.config_file.parent}/cluster.toml"\n'
            f'[transceiver]\nid = 3\nendpoint = "{self.endpoint}"\nmetrics = "127.0.0.1:9503"\nrun = "{folder}"\n'
            f'capacity = "fixed"\ndrain_s = 0\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FarHost:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_S)

    def start(self) -> None:
        argv = [sys.executable, "-m", "firsthop", "transceiver", "--config", str(self._folder / "firsthop.toml")]
        paths = [str(self._folder / "package"), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self._folder / "log").open("ab") as log:
            self._process = self._host.popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )

    def dies(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(DEADLINE_S)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self._folder / "log").read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == event]
