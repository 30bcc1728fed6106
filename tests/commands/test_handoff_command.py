"""The command ``firsthop handoff``, with signaling's API played by a server of this process."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from firsthop.cli import main

CALLS = "/v1/realtime/calls"
REFUSALS = {
    "call_id_not_found": (404, "no such call"),
    "model_not_found": (404, "no agent called 'nobody': there is echo, parrot"),
    "handoff_failed": (503, "pipeline cannot take over: no key"),
    "handoff_under_way": (409, "a hand-off of this call is under way"),
}


class Signaling(BaseHTTPRequestHandler):
    """Calls of two accounts, by the account's token. One of them cannot be handed off."""

    calls: ClassVar[dict[str, dict[str, str]]] = {}
    stuck: ClassVar[dict[str, str]] = {}
    more = False

    @property
    def _its(self) -> dict[str, str]:
        return self.calls.get(self.headers["Authorization"].removeprefix("Bearer "), {})

    def do_GET(self) -> None:
        model = parse_qs(urlsplit(self.path).query)["model"][0]
        data = [{"object": "realtime.call", "id": id_, "model": its} for id_, its in self._its.items() if its == model]
        self._answer(200, {"object": "list", "data": data, "has_more": self.more})

    def do_POST(self) -> None:
        call = self.path.removeprefix(CALLS + "/").removesuffix("/handoff")
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        code = "" if call in self._its else "call_id_not_found"
        code = code or ("model_not_found" if wanted == "nobody" else self.stuck.get(call, ""))
        if code:
            status, message = REFUSALS[code]
            self._answer(status, {"error": {"message": message, "type": "x", "code": code, "param": None}})
            return
        self._its[call] = wanted
        self._answer(200, {"object": "realtime.call", "id": call, "model": wanted})

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    Signaling.calls = {"one": {"rtc_a": "parrot", "rtc_b": "echo"}, "two": {"rtc_c": "parrot"}}
    Signaling.stuck, Signaling.more = {}, False
    (tmp_path / "api-keys").write_text("one # the shop\ntwo models=parrot,pipeline\n")
    with HTTPServer(("127.0.0.1", 0), Signaling) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        path = tmp_path / "firsthop.toml"
        path.write_text(
            f'[edge]\nhttp = "0.0.0.0:{server.server_port}"\nadvertise = "127.0.0.1:3478"\n'
            f'api_keys = "{tmp_path / "api-keys"}"\n'
        )
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of another name than this host's, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge.example")])
    now = datetime.datetime.now(tz=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    made = builder.not_valid_after(now + datetime.timedelta(days=9)).sign(key, hashes.SHA256())
    paths = directory / "tls.pem", directory / "tls.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, open_ = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, open_))
    return paths


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["handoff", *arguments, "-c", str(config)])


def test_one_call_is_handed_off_on_whatever_account_it_is(config: Path) -> None:
    found = run(config, "rtc_c", "pipeline")
    assert (found.exit_code, found.output) == (0, "1 of 1: rtc_c has pipeline\n")
    assert Signaling.calls["two"] == {"rtc_c": "pipeline"}


def test_all_calls_of_a_model_are_handed_off_one_after_the_other(config: Path) -> None:
    Signaling.stuck["rtc_a"] = "handoff_failed"
    found = run(config, "--from", "parrot", "--to", "pipeline")
    assert found.exit_code == 1
    assert found.output.splitlines() == [
        "1 of 2: rtc_a stays as it is: pipeline cannot take over: no key",
        "2 of 2: rtc_c has pipeline",
    ]
    assert Signaling.calls == {"one": {"rtc_a": "parrot", "rtc_b": "echo"}, "two": {"rtc_c": "pipeline"}}
    again = run(config, "--from", "echo", "--to", "pipeline", "--json")
    assert again.exit_code == 0
    assert json.loads(again.output) == {"calls": 1, "handed_off": 1, "stay": [], "complete": True}


def test_signaling_that_speaks_https_is_known_by_its_certificate(tmp_path: Path) -> None:
    Signaling.calls, Signaling.stuck = {"one": {"rtc_a": "parrot"}}, {}
    pem, key = certificate(tmp_path)
    (tmp_path / "api-keys").write_text("one\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    with HTTPServer(("127.0.0.1", 0), Signaling) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            for shown, code in ((pem, 0), (other, 1)):
                config = tmp_path / "firsthop.toml"
                config.write_text(
                    f'[edge]\nhttp = "127.0.0.1:{server.server_port}"\napi_keys = "{tmp_path / "api-keys"}"\n'
                    f'tls_certificate = "{shown}"\ntls_key = "{key}"\n'
                )
                found = run(config, "rtc_a", "pipeline")
                assert found.exit_code == code, found.output
            assert "certificate verify failed" in found.output
        finally:
            server.shutdown()
            thread.join()


def test_refusals_say_why(config: Path) -> None:
    unknown = run(config, "rtc_x", "pipeline", "--json")
    assert unknown.exit_code == 1
    assert json.loads(unknown.output)["stay"] == [{"call": "rtc_x", "code": "call_id_not_found", "why": "no such call"}]
    assert "there is echo, parrot" in run(config, "rtc_a", "nobody").output
    Signaling.stuck["rtc_a"] = "handoff_under_way"
    assert "under way" in run(config, "rtc_a", "pipeline").output


def test_a_list_that_is_not_whole_is_said_to_be(config: Path) -> None:
    Signaling.more = True
    found = run(config, "--from", "parrot", "--to", "pipeline")
    assert found.exit_code == 1
    assert "not all" in found.output


def test_a_model_without_calls_is_nothing_wrong(config: Path) -> None:
    found = run(config, "--from", "offline", "--to", "pipeline")
    assert (found.exit_code, found.output) == (0, "no call of offline\n")


@pytest.mark.parametrize("arguments", [(), ("rtc_a",), ("--from", "echo"), ("rtc_a", "echo", "--to", "parrot")])
def test_half_a_command_is_refused(config: Path, arguments: tuple[str, ...]) -> None:
    found = run(config, *arguments)
    assert found.exit_code == 2
    assert "either CALL MODEL, or --from MODEL --to MODEL" in found.output


def test_a_signaling_that_is_away_and_keys_that_cannot_be_read_are_said(config: Path, tmp_path: Path) -> None:
    away = config.with_name("away.toml")
    away.write_text(f'[edge]\nhttp = "127.0.0.1:1"\napi_keys = "{tmp_path / "api-keys"}"\n')
    found = run(away, "rtc_a", "pipeline")
    assert found.exit_code == 1
    assert "signaling does not answer on http://127.0.0.1:1" in found.output
    away.write_text(f'[edge]\napi_keys = "{tmp_path / "nowhere"}"\n')
    found = run(away, "rtc_a", "pipeline")
    assert found.exit_code == 2
    assert "edge.api_keys" in found.output
