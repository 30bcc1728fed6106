"""SRTP of one call, both ways: libsrtp's, with what has to go along when the session moves (RFC 3711, RFC 5764).

libsrtp keeps roll-over counters, which can be set, and replay windows, which can be neither read nor set. So the
windows are kept here as well, and so is the SRTCP index of what is sent (``rtc.dtls.srtcp``).
"""

from __future__ import annotations

import ctypes
from typing import Any

from pylibsrtp import Policy, Session, _binding
from pylibsrtp._binding import ffi, lib

from rtc.dtls.replay import ReplayWindow
from rtc.dtls.srtcp import SrtcpSender
from rtc.dtls.srtp_state import Profile, SrtpState

__all__ = ["PROFILES", "Srtp", "master_keys", "missing"]

_WINDOW = 1024  # packets
_SRTCP_WINDOW = 128
_BUFFER_BYTES = 1500  # pylibsrtp's, for the packet and what it grows by
_TRAILER_BYTES = 16 + 128
_SEQUENCES = 1 << 16
# pylibsrtp is built of libsrtp, and binds less of it than is needed here.
_LIBRARY = ctypes.CDLL(_binding.__file__)
_PROTECT, _UNPROTECT, _UNPROTECT_RTCP = (
    getattr(lib, name, None) for name in ("srtp_protect", "srtp_unprotect", "srtp_unprotect_rtcp")
)


def missing() -> list[str]:
    """The names used here that this version of pylibsrtp lacks."""
    used = ("srtp_protect", "srtp_unprotect", "srtp_unprotect_rtcp")
    names = [f"pylibsrtp {name}" for name in used if not hasattr(lib, name)]
    names += [
        f"libsrtp {name}" for name in ("srtp_get_stream_roc", "srtp_set_stream_roc") if not hasattr(_LIBRARY, name)
    ]
    # An attribute of instances.
    return names + ["pylibsrtp.Session._srtp"] * ("_srtp" not in Session.__init__.__code__.co_names)


# By their names in OpenSSL.
PROFILES = {
    b"SRTP_AES128_CM_SHA1_80": Profile(Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14, -14),
    b"SRTP_AEAD_AES_128_GCM": Profile(Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12, -4),
    b"SRTP_AEAD_AES_256_GCM": Profile(Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12, -4),
}


def master_keys(profile: Profile, exported: bytes) -> tuple[bytes, bytes]:
    """The client's and the server's master key with its salt, out of what the exporter gave (RFC 5764 section 4.2)."""
    key, salt, salts = profile.key, profile.salt, 2 * profile.key
    return (
        exported[:key] + exported[salts : salts + salt],
        exported[key:salts] + exported[salts + salt : salts + 2 * salt],
    )


class Srtp:
    """``profile`` is a key of PROFILES; ``ours`` and ``theirs`` are master keys with their salts. RTP has to be
    protected in the order of its sequence numbers. No call of it raises for what the peer sends."""

    def __init__(self, profile: bytes, ours: bytes, theirs: bytes) -> None:
        self._profile, self._ours, self._theirs = profile, ours, theirs
        form = PROFILES[profile]
        self._tx = _Direction(form.number, ours, Policy.SSRC_ANY_OUTBOUND)
        self._rx = _Direction(form.number, theirs, Policy.SSRC_ANY_INBOUND)
        self._tx_rtcp = SrtcpSender(ours[: form.key], ours[form.key :])
        self._index_at = form.srtcp_index
        self._sent: dict[bytes, bytes] = {}  # the last packet of each SSRC
        self._received: dict[bytes, ReplayWindow] = {}
        self._received_rtcp: dict[bytes, ReplayWindow] = {}

    def protect(self, rtp: bytes) -> bytes:
        """SRTP from RTP of at most 1,356 bytes. Raises ValueError where libsrtp refuses it."""
        srtp = self._tx.run(_PROTECT, rtp) if len(rtp) <= _BUFFER_BYTES - _TRAILER_BYTES else None
        if srtp is None:
            raise ValueError("no RTP packet, or one too long for SRTP")
        self._sent[rtp[8:12]] = rtp
        return srtp

    def protect_rtcp(self, rtcp: bytes) -> bytes:
        """SRTCP from RTCP."""
        return self._tx_rtcp.protect(rtcp)

    def unprotect(self, srtp: bytes) -> bytes | None:
        """RTP from SRTP, or None where it does not authenticate or is a replay."""
        rtp = self._rx.run(_UNPROTECT, srtp)
        if rtp is None:
            return None
        sequence = srtp[2] << 8 | srtp[3]
        ssrc = srtp[8:12]
        window = self._received.get(ssrc)
        if window is None:
            self._received[ssrc] = ReplayWindow(_WINDOW, sequence, 1)
            return rtp
        ahead = (sequence - window.top + 0x8000 & 0xFFFF) - 0x8000
        return rtp if window.take(window.top + ahead) else None

    def unprotect_rtcp(self, srtcp: bytes) -> bytes | None:
        """RTCP from SRTCP, or None as above."""
        rtcp = self._rx.run(_UNPROTECT_RTCP, srtcp)
        if rtcp is None:
            return None
        at = len(srtcp) + self._index_at
        index = int.from_bytes(srtcp[at : at + 4], "big") & 0x7FFF_FFFF
        window = self._received_rtcp.get(srtcp[4:8])
        if window is None:
            window = self._received_rtcp[srtcp[4:8]] = ReplayWindow(_SRTCP_WINDOW)
        return rtcp if window.take(index) else None

    def export(self) -> SrtpState:
        """The whole state. Whoever takes it up goes on protecting, and this object must not: it would use an index
        twice (RFC 3711 section 9.1)."""
        return SrtpState(
            self._profile,
            self._ours,
            self._theirs,
            {ssrc: self._tx.roc(ssrc) << 16 | rtp[2] << 8 | rtp[3] for ssrc, rtp in self._sent.items()},
            {ssrc: _window_state(window) for ssrc, window in self._received.items()},
            {ssrc: _window_state(window) for ssrc, window in self._received_rtcp.items()},
            self._tx_rtcp.indices,
        )

    @classmethod
    def take_up(cls, state: SrtpState) -> Srtp:
        """A session that goes on where ``export`` left off."""
        srtp = cls(state.profile, state.ours, state.theirs)
        form = PROFILES[state.profile]
        for ssrc, index in state.sent.items():
            packet = srtp._tx.begin_at(form.number, state.ours, ssrc, index)
            srtp._tx.run(lib.srtp_protect, packet)  # is seen by nobody
            srtp._sent[ssrc] = packet
        peer = _Direction(form.number, state.theirs)
        for ssrc, (top, seen) in state.received.items():
            packet = peer.begin_at(form.number, state.theirs, ssrc, top)
            srtp._rx.begin_at(form.number, state.theirs, ssrc, top)
            sealed = peer.run(lib.srtp_protect, packet)
            assert sealed is not None
            srtp._rx.run(lib.srtp_unprotect, sealed)
            srtp._received[ssrc] = _window(_WINDOW, top, seen)
        for ssrc, (top, seen) in state.received_rtcp.items():
            srtp._received_rtcp[ssrc] = _window(_SRTCP_WINDOW, top, seen)
        srtp._tx_rtcp.indices = dict(state.rtcp_indices)
        return srtp


def _window_state(window: ReplayWindow) -> tuple[int, bytes]:
    return window.top, window.seen.to_bytes(window.size // 8, "big")


def _window(size: int, top: int, seen: bytes) -> ReplayWindow:
    return ReplayWindow(size, top, int.from_bytes(seen, "big"))


class _Direction:
    """A session of libsrtp's. pylibsrtp's own calls look for what is known here, each time."""

    def __init__(self, profile: int, key: bytes, any_ssrc: int | None = None) -> None:
        self._session = Session(_policy(profile, key, any_ssrc) if any_ssrc is not None else None)
        self._pointer: Any = self._session._srtp[0]
        self._bytes = ffi.new("char[]", _BUFFER_BYTES)
        self._buffer = ffi.buffer(self._bytes)
        self._length = ffi.new("int *")

    def run(self, function: Any, packet: bytes) -> bytes | None:
        """The result of ``function`` on the packet; None where libsrtp refuses it."""
        size = len(packet)
        if size > _BUFFER_BYTES:
            return None
        self._buffer[:size] = packet
        length = self._length
        length[0] = size
        if function(self._pointer, self._bytes, length):
            return None
        made: bytes = self._buffer[: length[0]]
        return made

    def roc(self, ssrc: bytes) -> int:
        """The roll-over counter of an SSRC that has sent packets."""
        counter = ctypes.c_uint32()
        number = ctypes.c_uint32(int.from_bytes(ssrc, "big"))
        _LIBRARY.srtp_get_stream_roc(self._address, number, ctypes.byref(counter))
        return counter.value

    def begin_at(self, profile: int, key: bytes, ssrc: bytes, index: int) -> bytes:
        """Adds a stream whose first packet has to be that of ``index``, the roll-over counter and 16 bits: an RTP
        packet without content, to be run here or there, so that libsrtp counts on from it."""
        number = int.from_bytes(ssrc, "big")
        self._session.add_stream(_policy(profile, key, Policy.SSRC_SPECIFIC, number))
        _LIBRARY.srtp_set_stream_roc(self._address, ctypes.c_uint32(number), ctypes.c_uint32(index >> 16))
        return b"\x80\0" + (index % _SEQUENCES).to_bytes(2, "big") + bytes(4) + ssrc

    @property
    def _address(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(int(ffi.cast("uintptr_t", self._pointer)))


def _policy(profile: int, key: bytes, kind: int, ssrc: int = 0) -> Policy:
    policy = Policy(key=key, ssrc_type=kind, ssrc_value=ssrc, srtp_profile=profile)
    policy.allow_repeat_tx = True
    policy.window_size = _WINDOW
    return policy
