"""Offers as Chromium and Firefox write them, and the answer to one."""

from __future__ import annotations

from offers import FINGERPRINT, VP8, crlf

from rtc.sdp import answer as sdp

SECURITY = f"""\
a=ice-ufrag:EsAw
a=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
"""
CHROMIUM_AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{SECURITY}a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:6c2fcf3f 8f8f6b0c
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2815372861 cname:OZ5ipkrjkrzA
a=ssrc:2815372861 msid:6c2fcf3f 8f8f6b0c
"""
CHROMIUM_VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{SECURITY}a=mid:1
{VP8}"""
CHROMIUM_DATA = f"""\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{SECURITY}a=mid:2
a=sctp-port:5000
a=max-message-size:262144
"""
CHROMIUM_HEAD = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS 6c2fcf3f
"""
# Firefox says the fingerprint once, in the session's part, and trickles a candidate with an mDNS name.
FIREFOX = f"""\
v=0
o=mozilla...THIS_IS_SDPARTA-99.0 5903434357398391937 0 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 {FINGERPRINT}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 54321 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 192.0.2.55
a=candidate:0 1 UDP 2122187007 3c5dd6b2-7d5e-4b45-9c7e-3e8a0e3cf1fb.local 54321 typ host
a=candidate:4 1 TCP 2105458943 192.0.2.55 9 typ host tcptype active
a=sendrecv
a=end-of-candidates
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
a=ice-pwd:b0a4c8fe2dd5a5fb0e31b62a3b8d64ba
a=ice-ufrag:2a3d7f10
a=mid:0
a=msid:{{2d6f1c1e-0000}} {{8f7a-0000}}
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
a=ssrc:4227147428 cname:{{d1b3-0000}}
m=application 54321 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.55
a=sendrecv
a=ice-pwd:b0a4c8fe2dd5a5fb0e31b62a3b8d64ba
a=ice-ufrag:2a3d7f10
a=mid:1
a=setup:actpass
a=sctp-port:5000
a=max-message-size:1073741823
"""
CHROMIUM = crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO + CHROMIUM_VIDEO + CHROMIUM_DATA)


def answered(text: str, host: str = "203.0.113.10", more: tuple[tuple[str, int], ...] = ()) -> str:
    return sdp.answer(
        sdp.parse(text),
        ufrag="A" * 24,
        password="p" * 24,
        fingerprint=FINGERPRINT,
        host=host,
        port=3478,
        ssrc=77,
        more=more,
    )


def without(text: str, line: str) -> str:
    """``text`` without the lines that begin so."""
    assert f"\n{line}" in text
    return "".join(kept for kept in text.splitlines(keepends=True) if not kept.startswith(line))
