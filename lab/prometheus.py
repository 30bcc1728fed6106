"""A real Prometheus (Debian's) on a host of the lab, or on this machine: it scrapes what it is told, each second, and
answers queries. Its files are in a folder of its own.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.appliance import Place
from lab.program import Program, ProgramError

__all__ = ["Prometheus", "PrometheusError"]


class PrometheusError(ProgramError):
    """The error that Prometheus does not come up, or refuses a query."""


class Prometheus(Program):
    """Prometheus at ``port`` of ``place``, with the targets (``host:port``) of each job, and files of ``rules``. A
    context manager."""

    command = "prometheus"
    error = PrometheusError

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
        self._port = port
        every = f"{every_s}s"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
            ],
        }
        super().__init__(place, folder, "prometheus.yml", json.dumps(config))  # JSON is YAML

    def _argv(self, program: str) -> list[str]:
        return [
            program,
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
            return True

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


def _series(found: dict[str, Any]) -> list[dict[str, Any]]:
    if found["resultType"] == "scalar":
        return [{"metric": {}, "value": found["result"]}]
    series: list[dict[str, Any]] = found["result"]
    return series
