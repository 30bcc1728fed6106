"""A peer whose DTLS is aiortc's own: OpenSSL's records, and libsrtp's SRTP and SRTCP."""

from __future__ import annotations

from typing import Any

from aiortc import RTCDtlsTransport
from dtls_run import Pair
from OpenSSL import SSL

from rtc.dtls.secure import Certificate

SUITES = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-GCM-SHA384"]


class OneSuite(Certificate):
    """Of a peer that has no other."""

    suite = b""

    def _create_ssl_context(self, *args: Any, **kwargs: Any) -> SSL.Context:
        context = super()._create_ssl_context(*args, **kwargs)
        context.set_cipher_list(self.suite)
        return context


def of_openssl(two: Pair, at: int, suite: str) -> RTCDtlsTransport:
    """Makes one end aiortc's own, with ``suite`` alone, and with OpenSSL's records and libsrtp's SRTCP."""
    two.certificates[at] = OneSuite.generateCertificate()
    vars(two.certificates[at])["suite"] = suite.encode()
    dtls = RTCDtlsTransport(two.ends[at]._pipe, [two.certificates[at]])
    dtls._set_role("client" if at == 0 else "server")
    vars(dtls)["srtp"] = None
    two.ends[at]._dtls = dtls
    return dtls
