"""The parts that both ends of a WebRTC call need: ICE, DTLS, SRTP, SCTP, SDP, RTP, codecs, voice detection, a 20 ms
clock.
"""
