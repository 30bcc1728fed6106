"""The directory's store over TLS, with a real redis-server."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.redis_server import RedisServer
from runtime.config import Directory
from runtime.directory.opened import check, open_store
from runtime.directory.store import StoreError
from runtime.errors import ConfigError
from wire.report import Report

ONE = Report(1, "tcp://192.0.2.1:7400", generation=11, number=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may take as long as a busy machine needs."""
    monkeypatch.setattr("runtime.directory.redis_store._PATIENCE_S", 30.0)
    monkeypatch.setattr("runtime.directory.redis_store._IN_ALL_S", 60.0)


def a_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for ``host`` that vouches for itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(tz=datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    certificate = builder.not_valid_after(now + datetime.timedelta(days=9)).sign(key, hashes.SHA256())
    paths = folder / f"{host}.pem", folder / f"{host}.key"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(certificate.public_bytes(pem))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(pem, form, plain))
    return paths


async def test_over_tls_only_a_server_that_somebody_trusted_vouches_for_is_spoken_to(tmp_path: Path) -> None:
    (ours, key), (theirs, _) = a_certificate(tmp_path, "localhost"), a_certificate(tmp_path, "elsewhere")
    password = tmp_path / "password"
    password.write_text("right\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    tls = ["--tls-port", port, "--tls-cert-file", str(ours), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    with RedisServer(tmp_path, "--bind", "127.0.0.1", *tls, "--requirepass", "right"):
        for host, trusted, why in [
            ("localhost", ours, ""),
            ("localhost", theirs, "(?i)certificate verify failed"),
            ("localhost", None, "(?i)certificate verify failed"),
            ("127.0.0.1", ours, "(?i)certificate verify failed"),
        ]:
            store = open_store(Directory(redis=f"rediss://{host}:{port}", password_file=password, ca_file=trusted))
            if why:
                with pytest.raises(StoreError, match=why):
                    await store.put(ONE)
            else:
                assert await store.put(ONE) is None
                assert (await store.snapshot()).transceivers == {1: ONE}
            await store.close()


@pytest.mark.parametrize(
    ("url", "text", "why"),
    [
        ("rediss://localhost", None, "No such file"),
        ("rediss://localhost", "no certificate", "PEM|pem|certificate"),
        ("redis://localhost", "", "only a Redis at rediss://"),
    ],
)
def test_a_file_that_vouches_for_nobody_is_one_line(tmp_path: Path, url: str, text: str | None, why: str) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=f"directory.ca_file.*(?:{why})") as refused:
        check(Directory(redis=url, ca_file=file))
    assert "\n" not in str(refused.value)
