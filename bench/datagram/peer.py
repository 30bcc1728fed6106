"""The peer: aiortc's own classes pass a packet on, from its SRTP to another's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiortc import RTCCertificate, RTCDtlsTransport, RTCRtpReceiver
from aiortc.codecs import CODECS
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpDecodingParameters, RTCRtpReceiveParameters
from aiortc.rtp import RtpPacket
from pylibsrtp import Policy, Session

from rtc.rtp import packet as rtp

__all__ = ["Aiortc"]

_PAYLOAD_TYPE = 111
_SSRC = 7


class _Receiver(RTCRtpReceiver):
    """One that sends what comes back as it is, once it has done with it all that it does before decoding."""

    def __init__(self, transport: RTCDtlsTransport) -> None:
        super().__init__("audio", transport)
        opus = next(codec for codec in CODECS["audio"] if codec.mimeType == "audio/opus")
        opus.payloadType = _PAYLOAD_TYPE
        # ``receive`` would set them, and start a thread that decodes.
        self._RTCRtpReceiver__codecs = {_PAYLOAD_TYPE: opus}
        transport._register_rtp_receiver(
            self,
            RTCRtpReceiveParameters(codecs=[opus], encodings=[RTCRtpDecodingParameters(_SSRC, _PAYLOAD_TYPE)]),
        )
        self._sequence = 0

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        await super()._handle_rtp_packet(packet, arrival_time_ms)
        self._sequence = (self._sequence + 1) & 0xFFFF
        again = RtpPacket(
            payload_type=packet.payload_type,
            sequence_number=self._sequence,
            timestamp=packet.timestamp,
            ssrc=_SSRC + 1,
            payload=packet.payload,
        )
        await self.transport._send_rtp(again.serialize(self.transport._rtp_header_extensions_map))


class Aiortc:
    """A connected transport of aiortc's, less its handshake, whose packets go nowhere."""

    def __init__(self) -> None:
        self.sent = 0
        ice: Any = SimpleNamespace(_send=self._send)
        self._transport: Any = RTCDtlsTransport(ice, [RTCCertificate.generateCertificate()])
        self._transport._state = State.CONNECTED
        key, profile = bytes(range(30)), Policy.SRTP_PROFILE_AES128_CM_SHA1_80
        outward = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
        self._transport._rx_srtp = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self._transport._tx_srtp, self._theirs = Session(outward), Session(outward)
        self._receiver = _Receiver(self._transport)
        self._sequence = 0

    async def _send(self, datagram: bytes) -> None:
        self.sent += 1

    def spoken(self, payload: bytes) -> bytes:
        """The next packet, as its sender protects it."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        made = rtp.build(_PAYLOAD_TYPE, False, self._sequence, 960 * self._sequence, _SSRC, payload)
        protected: bytes = self._theirs.protect(made)
        return protected

    async def take(self, datagram: bytes, now_ms: int) -> None:
        """Takes a packet as it came, and sends it back."""
        await self._transport._handle_rtp_data(self._transport._rx_srtp.unprotect(datagram), now_ms)
