"""Certificates that callers show: of every kind, in either DTLS role, in flights of many datagrams; and those that
would cost too much."""

from __future__ import annotations

import asyncio
import datetime
import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from dtls_run import DEADLINE_S, Pair, audio, pair
from OpenSSL import SSL, crypto

from rtc.dtls import flights
from rtc.dtls import secure as dtls
from rtc.dtls.peer_keys import may_be_checked
from rtc.dtls.secure import Certificate, DtlsError

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
KINDS = ["rsa-2048", "rsa-4096", "p-256", "p-384", "p-521"]


@cache
def key(kind: str) -> Key:
    match kind.split("-"):
        case ["rsa", bits]:
            return rsa.generate_private_key(65537, int(bits))
        case ["odd", bits]:
            return with_a_large_exponent(int(bits))
        case _:
            return ec.generate_private_key(
                {"p-256": ec.SECP256R1, "p-384": ec.SECP384R1, "p-521": ec.SECP521R1}[kind]()
            )


def with_a_large_exponent(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key whose public operation takes as long as its private one, without its short cuts."""
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    p, q = numbers.p, numbers.q
    order = math.lcm(p - 1, q - 1)
    rng = random.Random(8017)
    d = next(d for _ in range(10_000) if math.gcd(d := rng.randrange(order), order) == 1)
    public = rsa.RSAPublicNumbers(pow(d, -1, order), p * q)
    return rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    ).private_key()


def signed(
    own: Key, issuer: Key | None = None, more: tuple[x509.ExtensionType, ...] = (), names: tuple[str, str] = ("x", "x")
) -> x509.Certificate:
    now = datetime.datetime.now(tz=datetime.UTC)
    subject, by = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in names)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(own.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=30))
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer or own
    return builder.sign(signer, hashes.SHA256())


class Foreign(Certificate):
    """A caller's certificate, with OpenSSL's own suites and issuers of its own."""

    issuers: tuple[x509.Certificate, ...] = ()
    suites = b"DEFAULT"

    def _create_ssl_context(self, *args: Any, **kwargs: Any) -> SSL.Context:
        context = super()._create_ssl_context(*args, **kwargs)
        context.set_cipher_list(self.suites)
        for issuer in self.issuers:
            context.add_extra_chain_cert(issuer)
        return context


def foreign(kind: str, *more: x509.ExtensionType) -> Foreign:
    return Foreign(key(kind), signed(key(kind), more=more))  # type: ignore[arg-type]  # aiortc says EC, and means any


@asynccontextmanager
async def met(caller: Foreign, *, client: bool, connected: bool = True) -> AsyncIterator[tuple[Pair, int]]:
    """The two ends of a handshake, ours and the caller's; ``client`` says whether the caller begins DTLS."""
    ours = Certificate.generateCertificate()
    both = (caller, ours) if client else (ours, caller)
    async with pair(*both, connected=connected) as two:
        yield two, 0 if client else 1


def roles(function: Any) -> Any:
    return pytest.mark.parametrize("client", [True, False], ids=["as client", "as server"])(function)


@roles
@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_with_any_kind_of_certificate_connects(kind: str, client: bool) -> None:
    async with met(foreign(kind), client=client) as (two, _):
        for sender in (0, 1):
            assert two.ends[1 - sender].unprotect(two.ends[sender].protect(audio())) == audio()


async def test_a_server_with_nothing_but_rsa_suites_is_talked_to() -> None:
    caller = foreign("rsa-2048")
    caller.suites = b"ECDHE-RSA-AES256-GCM-SHA384"
    async with met(caller, client=False) as (two, _):
        assert all(end.connected for end in two.ends)


def chained() -> Foreign:
    """A certificate with two issuers above it: more than 4 KB in one handshake message."""
    top, middle, own = key("rsa-4096"), key("rsa-3072"), key("rsa-2048")
    caller = Foreign(own, signed(own, middle, names=("caller", "middle")))  # type: ignore[arg-type]
    is_ca = (x509.BasicConstraints(ca=True, path_length=None), *padding())
    caller.issuers = signed(middle, top, is_ca, ("middle", "top")), signed(top, more=is_ca, names=("top", "top"))
    return caller


def padding(size: int = 600) -> Iterator[x509.ExtensionType]:
    yield x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(size))


@roles
async def test_a_chain_longer_than_a_datagram_passes_in_several(client: bool) -> None:
    async with met(chained(), client=client) as (two, caller):
        theirs = [datagram for sender, datagram in two.sent if sender == caller]
        assert sum(map(len, theirs)) > 3 * flights.LARGEST_DATAGRAM
        assert max(map(len, theirs)) <= flights.LARGEST_DATAGRAM
        assert all(end.connected for end in two.ends)


@roles
async def test_of_a_chain_no_more_than_the_first_issuer_is_looked_at(
    client: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: set[int] = set()

    def looked_at(certificate: crypto.X509, depth: int) -> bool:
        depths.add(depth)
        return may_be_checked(certificate, depth)

    monkeypatch.setattr(dtls, "may_be_checked", looked_at)
    async with met(chained(), client=client):
        assert depths == {0, 1}


@roles
async def test_a_lost_datagram_of_a_long_flight_is_made_up_for(client: bool) -> None:
    async with met(chained(), client=client, connected=False) as (two, caller):
        count = 0

        def carries(sender: int, datagram: bytes) -> bool:
            nonlocal count
            count += sender == caller and len(datagram) > 1000
            return not (sender == caller and count == 2)

        two.carries = carries
        await two.connect()


@roles
async def test_a_key_that_takes_long_to_check_is_refused(client: bool) -> None:
    async with met(foreign("odd-2048"), client=client, connected=False) as (two, caller):
        async with asyncio.timeout(DEADLINE_S):
            trusting = asyncio.ensure_future(two.ends[caller].handshake(two.fingerprint_of(1 - caller)))
            with pytest.raises(DtlsError):
                await two.ends[1 - caller].handshake(two.fingerprint_of(caller))
            await two.ends[caller].close()
            await asyncio.gather(trusting, return_exceptions=True)


@roles
async def test_a_message_of_more_than_16_kib_is_dropped_and_counted(client: bool) -> None:
    caller = foreign("p-256", *padding(flights.LARGEST_MESSAGE))
    async with met(caller, client=client, connected=False) as (two, at):
        shaking = [asyncio.ensure_future(end.handshake(two.fingerprint_of(1 - i))) for i, end in enumerate(two.ends)]
        async with asyncio.timeout(DEADLINE_S):
            while not two.ends[1 - at].overflowed:  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.01)
        assert not any(end.connected for end in two.ends)
        for end in two.ends:
            await end.close()
        await asyncio.gather(*shaking, return_exceptions=True)


def of_a_public_key(public: Any) -> crypto.X509:
    """A certificate of a key that nobody holds."""
    own = signed(key("p-256"))
    builder = x509.CertificateBuilder().subject_name(own.subject).issuer_name(own.subject).public_key(public)
    builder = builder.serial_number(1).not_valid_before(own.not_valid_before_utc)
    made = builder.not_valid_after(own.not_valid_after_utc).sign(key("p-256"), hashes.SHA256())
    return crypto.X509.from_cryptography(made)


def test_keys_of_clients_may_be_checked_and_others_not() -> None:
    modulus = 1 << 4095 | 1
    curves = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    usual = [ec.generate_private_key(curve).public_key() for curve in curves]
    usual += [rsa.RSAPublicNumbers(e, n).public_key() for e in (3, 65537) for n in (1 << 2047 | 1, modulus)]
    usual += [ed25519.Ed25519PrivateKey.generate().public_key()]
    odd = [ec.generate_private_key(ec.SECP256K1()).public_key(), dsa.generate_private_key(1024).public_key()]
    odd += [rsa.RSAPublicNumbers(e, n).public_key() for e, n in ((65537, 1 << 4096 | 1), ((1 << 33) + 1, modulus))]
    for depth in (0, 1):
        assert all(may_be_checked(of_a_public_key(public), depth) for public in usual)
        assert not any(may_be_checked(of_a_public_key(public), depth) for public in odd)


def test_an_issuer_with_constraints_on_names_is_refused() -> None:
    constraints = x509.NameConstraints([x509.DNSName("a.example")], None)
    issuer = crypto.X509.from_cryptography(signed(key("p-256"), more=(constraints,)))
    assert not may_be_checked(issuer, 1)
    assert may_be_checked(issuer, 0)


# --- records


def record(content: bytes, kind: int = 22, epoch: int = 0) -> bytes:
    return bytes([kind, 0xFE, 0xFD, 0, epoch]) + bytes(6) + len(content).to_bytes(2, "big") + content


def message(length: int, part: int = 10) -> bytes:
    return bytes([11]) + length.to_bytes(3, "big") + bytes(5) + part.to_bytes(3, "big") + bytes(part)


def test_a_flight_is_cut_between_records_and_nowhere_else() -> None:
    records = [record(bytes([i]) * size) for i, size in enumerate((500, 500, 500, 1400, 0, 100, 1187, 3))]
    flight = b"".join(records)
    made = list(flights.datagrams(flight))
    assert b"".join(made) == flight
    assert [len(datagram) for datagram in made] == [1026, 513, 1413, 126, 1200, 16]
    assert list(flights.datagrams(b"")) == []
    for cut in range(1, 40):
        assert b"".join(flights.datagrams(flight[:-cut])) == flight[:-cut]


def test_a_large_message_is_seen_wherever_it_is_in_a_datagram() -> None:
    large = message(flights.LARGEST_MESSAGE + 1)
    small = message(flights.LARGEST_MESSAGE)
    for datagram in (record(large), record(small) + record(large), record(small + large), record(large)[:-5]):
        assert not flights.is_bearable(datagram)
    # What is encrypted tells nothing, and nothing that is cut short is a fault here.
    for datagram in (record(small), record(large, epoch=1), record(large, kind=23), record(large)[:20], b"\x16", b""):
        assert flights.is_bearable(datagram)
