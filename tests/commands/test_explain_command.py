"""The command ``firsthop explain``, with signaling's page played by a server of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from click.testing import CliRunner, Result
from fleets import a_report, fleet_of, placer_of

from edge.placement.explain import explain
from edge.placement.placer import Wanted
from firsthop.cli import main

PLACER = placer_of(fleet_of(a_report(1, 20, 30, region="eu", version="7"), a_report(2, 50, 0, region="us")))


class Signaling(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wanted = Wanted(asked.get("model", ""), asked.get("version", ""), asked.get("region", ""))
        body = msgspec.json.encode(explain(PLACER, wanted, 1.0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    with HTTPServer(("127.0.0.1", 0), Signaling) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        path = tmp_path / "firsthop.toml"
        path.write_text(f'[edge]\nmetrics = "127.0.0.1:{server.server_port - 1}"\n')
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments, "-c", str(config)])


def test_the_ranking_is_shown_with_its_reasons(config: Path) -> None:
    found = run(config, "parrot", "--region", "eu")
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert lines[0] == "model parrot, policy latency, near eu"
    first, second = (next(line for line in lines if line.startswith(number)) for number in "12")
    assert lines.index(first) < lines.index(second)
    assert first.split()[1:4] == ["eu", "7", "good"]
    assert "20/50" in first
    assert "full" in second
    assert "1 good, 1 full" in lines


def test_a_program_gets_an_object(config: Path) -> None:
    found = run(config, "parrot", "--json")
    assert [(c["id"], c["verdict"]) for c in json.loads(found.output)["candidates"]] == [(1, "good"), (2, "full")]


def test_the_exit_code_says_that_nobody_would_be_asked(config: Path) -> None:
    nobody = run(config, "whisper")
    assert nobody.exit_code == 3
    assert "there is parrot" in nobody.output
    other = run(config, "parrot", "--version", "8")
    assert other.exit_code == 3
    assert other.output.startswith("model parrot@8, policy latency\n")


def test_the_exit_code_says_that_signaling_is_away_or_the_configuration_wrong(tmp_path: Path) -> None:
    path = tmp_path / "firsthop.toml"
    path.write_text('[edge]\nmetrics = "127.0.0.1:1"\n')
    away = run(path, "parrot")
    assert away.exit_code == 1
    assert "127.0.0.1:2" in away.output
    path.write_text("[edge]\nmetrics = 7\n")
    assert run(path, "parrot").exit_code == 2
