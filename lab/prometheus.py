"""A real Prometheus (Debian's) on a host of the lab, or on this machine: it scrapes what it is told, each second, and
answers queries. Its files are in a folder of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lab.appliance import Place, end

__all__ = ["Prometheus", "PrometheusError"]

_READY_S = 60.0
_GOODBYE_S = 10.0


class PrometheusError(RuntimeError):
    """The error that Prometheus does not come up, or refuses a query."""


class Prometheus:
    """Prometheus at ``port`` of ``place``, with the targets (``host:port``) of each job, and files of ``rules``. A
    context manager."""

    def __init__(
        self,
        place: Place,
        folder: Path,
        jobs: Mapping[str, Sequence[str]],
        rules: Sequence[Path] = (),
        *,
        port: int = 19090,
        every_s: int = 1,
    ) -> None:
        self._place, self._folder, self._port = place, folder, port
        self._process: subprocess.Popen[Any] | None = None
        every = f"{every_s}s"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "prometheus.yml"
        self._config.write_text(json.dumps(config))  # JSON is YAML

    def __enter__(self) -> Self:
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError("there is no prometheus on this machine: scripts/setup dev installs Debian's")
        argv = [
            program,
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        log = self._folder / "prometheus.log"
        with log.open("wb") as file:
            self._process = self._place.popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        until = time.monotonic() + _READY_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise PrometheusError(f"Prometheus did not come up: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, and waits for it."""
        process, self._process = self._process, None
        if process is not None:
            end(process, _GOODBYE_S)

    def query(self, expr: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """The series of ``expr`` now, or at that Unix time: each has ``metric`` and ``value``. Raises PrometheusError
        where it is no expression."""
        fields = {"query": expr} if at_s is None else {"query": expr, "time": str(at_s)}
        return _series(self._get("query", fields))

    def over(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """The series of ``expr`` between two Unix times: each has ``metric`` and ``values``."""
        fields = {"query": expr, "start": str(start_s), "end": str(end_s), "step": str(step_s)}
        return _series(self._get("query_range", fields))

    def rules(self) -> list[dict[str, Any]]:
        """All rules as Prometheus has them, with their ``health`` and the time that they took to evaluate."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """All targets, with their ``health`` and ``lastError``."""
        found: list[dict[str, Any]] = self._get("targets", {})["activeTargets"]
        return found

    def _get(self, what: str, fields: Mapping[str, str]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(fields)}"

        def fetch() -> dict[str, Any]:
            try:
                with urllib.request.urlopen(url, timeout=30) as response:
                    said: dict[str, Any] = json.load(response)
            except urllib.error.HTTPError as e:
                said = json.load(e)
            return said

        said = self._place.inside(fetch)
        if said.get("status") != "success":
            raise PrometheusError(f"{fields.get('query', what)}: {said.get('error')}")
        found: dict[str, Any] = said["data"]
        return found

    def _ready(self) -> bool:
        def asked() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                    return True
            except OSError:
                return False

        return self._place.inside(asked)


def _series(found: dict[str, Any]) -> list[dict[str, Any]]:
    if found["resultType"] == "scalar":
        return [{"metric": {}, "value": found["result"]}]
    series: list[dict[str, Any]] = found["result"]
    return series
