"""The agreement of edge and transceiver: sealed ufrags, flow addresses, STUN, and the messages between them.

Everything here is pure: bytes in, bytes out. Nothing here imports ``edge`` or ``transceiver``.
"""
