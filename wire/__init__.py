"""What edge and transceiver must agree on: sealed ufrags, flow addresses, STUN, and the frames between them.

Everything here is pure: bytes in, bytes out. Nothing here imports ``edge`` or ``transceiver``.
"""
