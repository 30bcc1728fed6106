"""HTTPS: a renewed certificate is taken up by what is in its file, and what goes on goes on."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from signaling_edge import DEADLINE_S, TOKEN, Edge, an_edge
from waiting import eventually

from edge.signaling import listener
from edge.tls import Certificate
from runtime import logs
from runtime.errors import ConfigError

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def write(directory: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Writes a certificate for ``name`` and its key, under the same paths each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(tz=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    certificate = builder.not_valid_after(now + datetime.timedelta(days=9)).sign(key, hashes.SHA256())
    paths = directory / "tls.pem", directory / "tls.key"
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    return paths


def client() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def connect(edge: Edge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*edge.address, ssl=client())


async def name_of(edge: Edge) -> str:
    """The name in the certificate of a new connection."""
    _, writer = await connect(edge)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    name = x509.load_der_x509_certificate(shown).subject.rfc4514_string()
    return name.removeprefix("CN=")


async def is_served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(GET)
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.readuntil(b"ok\n")
    return answer.startswith(b"HTTP/1.1 200")


async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    certificate, key = write(tmp_path, "first")
    async with an_edge(tmp_path, tls_certificate=certificate, tls_key=key) as edge:
        assert await name_of(edge) == "first"
        stands = await connect(edge)
        assert await is_served(*stands)
        assert not edge.certificate.refresh()
        write(tmp_path, "second")
        assert edge.certificate.refresh()
        assert await name_of(edge) == "second"
        assert await is_served(*stands)
        # The same, as certbot does it: another file behind a link.
        (tmp_path / "archive").mkdir()
        for new, path in zip(write(tmp_path / "archive", "third"), (certificate, key), strict=True):
            path.unlink()
            path.symlink_to(new)
        assert edge.certificate.refresh()
        assert await name_of(edge) == "third"
        assert await is_served(*stands)
        stands[1].close()


@pytest.mark.parametrize("broken", ["empty", "of another key", "gone", "nonsense", "behind a password"])
async def test_a_broken_certificate_is_one_line_and_the_old_one_stays(tmp_path: Path, broken: str) -> None:
    certificate, key = write(tmp_path, "good")
    async with an_edge(tmp_path, tls_certificate=certificate, tls_key=key) as edge:
        old = certificate.read_bytes()
        write(tmp_path, "bad", b"password" if broken == "behind a password" else None)
        if broken == "gone":
            certificate.unlink()
        elif broken != "behind a password":
            certificate.write_bytes({"empty": b"", "of another key": old, "nonsense": os.urandom(99)}[broken])
        with structlog.testing.capture_logs() as caught:
            assert [edge.certificate.refresh() for _ in range(5)] == [False] * 5
        (line,) = caught
        assert line["log_level"] == "warning"
        assert "\n" not in line["why"]
        assert await name_of(edge) == "good"
        write(tmp_path, "mended")
        assert edge.certificate.refresh()
        assert await name_of(edge) == "mended"


def test_a_key_behind_a_password_is_refused_at_the_start_without_asking_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"edge\.tls_key"):
        Certificate(*write(tmp_path, "x", b"password"), logs.get())


async def test_who_does_not_finish_the_handshake_is_counted_and_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_HANDSHAKE_S", 0.5)
    certificate, key = write(tmp_path, "x")
    async with an_edge(tmp_path, tls_certificate=certificate, tls_key=key, connections_per_address=4) as edge:
        idle = [socket.create_connection(edge.address) for _ in range(6)]
        await eventually(lambda: edge.connections["address_full"] == 2)
        await eventually(lambda: edge.connections["broken"] == 4 and len(edge.listener) == 0)
        idle[0].close()
        plain = socket.create_connection(edge.address)
        plain.sendall(GET)
        await eventually(lambda: edge.connections["broken"] == 5)
        monkeypatch.undo()
        assert await is_served(*(await connect(edge)))
        for sock in (*idle, plain):
            sock.close()


async def test_calls_and_sockets_work_over_tls(tmp_path: Path) -> None:
    certificate, key = write(tmp_path, "x")
    async with an_edge(tmp_path, tls_certificate=certificate, tls_key=key) as edge:
        async with edge.http.get(edge.url + "/openapi.json", ssl=client()) as response:
            assert (await response.json())["openapi"]
        assert (await edge.error("POST", "/v1/realtime/calls", ssl=client(), headers=TOKEN))[0] == 415
