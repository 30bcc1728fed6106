"""Offers as clients other than Chromium and Firefox write them, and a plain one to bend."""

from __future__ import annotations

FINGERPRINT = ":".join(f"{i:02X}" for i in range(32))
_UFRAG, _PASSWORD = "EsAw", "bP+XJMM09aR8AiX1jdukzR6Y"
ICE = f"a=ice-ufrag:{_UFRAG}\na=ice-pwd:{_PASSWORD}\n"
DTLS = f"a=fingerprint:sha-256 {FINGERPRINT}\na=setup:actpass\n"

HEAD = "v=0\no=- 4611731400430051336 2 IN IP4 127.0.0.1\ns=-\nt=0 0\n"
AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8 101
c=IN IP4 0.0.0.0
{ICE}{DTLS}a=mid:0
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/48000
a=ssrc:1234567 cname:c
"""
DATA = f"""\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{ICE}{DTLS}a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
VP8 = """\
a=sendrecv
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""
VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
{ICE}{DTLS}a=mid:2
{VP8}"""
BUNDLE = "a=group:BUNDLE 0 1\n"
PLAIN = HEAD + BUNDLE + AUDIO + DATA

# Firefox, and GStreamer's webrtcbin, with bundle policy max-bundle.
BUNDLE_ONLY = f"""\
{HEAD}a=fingerprint:sha-256 {FINGERPRINT}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 109 101
c=IN IP4 0.0.0.0
a=sendrecv
{ICE}a=mid:0
a=rtcp-mux
a=rtcp-mux-only
a=rtpmap:109 opus/48000/2
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=bundle-only
a=sendrecv
a=mid:1
a=sctp-port:5000
a=max-message-size:1073741823
"""
GSTREAMER = f"""\
v=0
o=- 2592263364613271245 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE audio0 application1
m=audio 9 UDP/TLS/RTP/SAVPF 97
c=IN IP4 0.0.0.0
a=setup:actpass
{ICE}a=rtcp-mux
a=rtcp-rsize
a=sendrecv
a=rtpmap:97 OPUS/48000
a=rtcp-fb:97 transport-cc
a=extmap:1 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=fmtp:97 sprop-maxcapturerate=48000;sprop-stereo=0
a=ssrc:3484078950 msid:user3344942761@host-c94c2f2b webrtctransceiver0
a=ssrc:3484078950 cname:user3344942761@host-c94c2f2b
a=mid:audio0
a=fingerprint:sha-256 {FINGERPRINT}
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:actpass
{ICE}a=bundle-only
a=mid:application1
a=sctp-port:5000
a=fingerprint:sha-256 {FINGERPRINT}
"""
# The transport's attributes are the session's.
LIBDATACHANNEL = f"""\
v=0
o=rtc 3767197920 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE audio data
a=group:LS audio data
a=msid-semantic:WMS *
a=setup:actpass
{ICE}a=ice-options:ice2,trickle
a=fingerprint:sha-256 {FINGERPRINT}
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:audio
a=sendrecv
a=ssrc:42 cname:audio-send
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:data
a=sendrecv
a=sctp-port:5000
a=max-message-size:262144
"""
# Of a telephone exchange: no group, no mid, RTP/SAVPF, blanks in fmtp.
FREESWITCH = f"""\
v=0
o=FreeSWITCH 1506487096 1506487097 IN IP4 192.0.2.115
s=FreeSWITCH
c=IN IP4 192.0.2.115
t=0 0
a=msid-semantic: WMS hmFFZldKVKWC3qxXDnUFHws9yQkuGTrO
m=audio 16146 RTP/SAVPF 102 101 13
a=rtpmap:102 opus/48000/2
a=fmtp:102 useinbandfec=1; usedtx=1; maxaveragebitrate=20000; ptime=20; minptime=20; maxptime=20
a=rtpmap:101 telephone-event/8000
{DTLS}a=rtcp-mux
a=rtcp:16146 IN IP4 192.0.2.115
a=ssrc:3721256842 cname:6XkV8owTZilSyJF1
a=ssrc:3721256842 mslabel:hmFFZldKVKWC3qxXDnUFHws9yQkuGTrO
{ICE}a=candidate:7038872351 1 udp 659136 192.0.2.115 16146 typ host generation 0
a=candidate:7038872351 2 udp 659136 192.0.2.115 16146 typ host generation 0
a=ptime:20
"""
# Before RFC 8841: Chromium until 2019, Safari until 2020.
LEGACY = f"""\
{HEAD}a=group:BUNDLE audio data
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
{ICE}{DTLS}a=mid:audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
m=application 9 DTLS/SCTP 5000
c=IN IP4 0.0.0.0
{ICE}{DTLS}a=mid:data
a=sctpmap:5000 webrtc-datachannel 1024
"""
OF_CLIENTS = {
    "plain": PLAIN,
    "bundle-only": BUNDLE_ONLY,
    "gstreamer": GSTREAMER,
    "libdatachannel": LIBDATACHANNEL,
    "freeswitch": FREESWITCH,
    "legacy": LEGACY,
}


def crlf(text: str) -> str:
    """The text with line ends as RFC 8866 wants them."""
    return text.replace("\n", "\r\n")
